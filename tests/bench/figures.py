"""Figures, their ratios, and the table of them.

A row compares what sidenote needs with what a contender needs for the same thing in the same run.
Every round gives a pair; the ratio of a row is the median of the pairs' ratios, so that what slows
both down for a while counts for neither. No figure is worth anything without its contender's.
"""

import json
import statistics


def median(values):
    return statistics.median(values)


def percentile(values, p):
    """Nearest rank: with few values the last percentiles are the largest of them."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * p // 100) - 1))]


def short(x):
    if x is None:
        return ""
    if abs(x) >= 1000:
        return f"{x:,.0f}"
    return f"{x:.3g}" if abs(x) < 1 else f"{x:.1f}" if abs(x) < 100 else f"{x:.0f}"


def with_spread(values, factor=short):
    """median (smallest to largest)"""
    if not values:
        return ""
    if len(values) == 1:
        return factor(values[0])
    return f"{factor(median(values))} ({factor(min(values))} to {factor(max(values))})"


def met(goal, values):
    """True or False; None without a goal or a figure."""
    if not goal or not values:
        return None
    relation, limit = goal.split()
    value = median(values)
    return value >= float(limit) if relation == ">=" else value <= float(limit)


class Table:
    """Rows in the order in which they were measured."""

    def __init__(self):
        self.rows = []
        self.facts = {}

    def add(self, group, what, unit, ours, contender="", theirs=(), goal="", inverse=False):
        """`ours` and `theirs` are lists, one figure per round. The ratio is ours / theirs, or with
        `inverse` theirs / ours. A goal (">= 0.9") is the ratio's, or where nothing is compared the
        figure's."""
        ratios = [(t / o if inverse else o / t) for o, t in zip(ours, theirs) if o and t]
        self.rows.append({"group": group, "what": what, "unit": unit, "sidenote": list(ours),
                          "contender": contender, "theirs": list(theirs), "ratios": ratios,
                          "goal": goal, "met": met(goal, ratios if contender else ours)})
        print("   " + self._cells(self.rows[-1], " | "), flush=True)

    def _cells(self, row, separator):
        return separator.join((
            row["what"], with_spread(row["sidenote"]), row["unit"], row["contender"],
            with_spread(row["theirs"]),
            with_spread(row["ratios"], lambda x: f"{x:.2f}"),
            f"{row['goal']}: {'met' if row['met'] else 'missed'}" if row["met"] is not None
            else row["goal"])).strip()

    def text(self):
        lines = [f"{name}: {value}" for name, value in self.facts.items()]
        lines += ["", "| measured | sidenote | unit | compared with | that | ratio | goal |",
                  "|---|---|---|---|---|---|---|"]
        group = None
        for row in self.rows:
            if row["group"] != group:
                group = row["group"]
                lines.append(f"| **{group}** | | | | | | |")
            lines.append("| " + self._cells(row, " | ") + " |")
        return "\n".join(lines) + "\n"

    def goals(self):
        """The rows that have a goal, as sentences."""
        with_goal = [row for row in self.rows if row["met"] is not None]
        if not with_goal:
            return ""
        lines = [f"{sum(row['met'] for row in with_goal)} of {len(with_goal)} goals met; missed:"]
        lines += [f"  {row['group']}: {row['what']} / {row['contender'] or row['unit']}: "
                  f"{median(row['ratios'] or row['sidenote']):.2f}, goal {row['goal']}"
                  for row in with_goal if not row["met"]]
        return "\n".join(lines) + "\n"

    def json(self):
        return json.dumps({"facts": self.facts, "rows": self.rows}, indent=1) + "\n"
