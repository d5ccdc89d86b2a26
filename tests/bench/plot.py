"""The table as a picture: every ratio with its spread, on a scale of powers of ten, and its goal."""

from html import escape
from math import ceil, floor, log10

from figures import median

ROW, LEFT, WIDTH, RIGHT, TOP = 22, 470, 460, 150, 56
STYLE = ("text{font:12px sans-serif;fill:#1b1f24}.g{font-weight:bold}.axis{stroke:#d0d7de}"
         ".one{stroke:#57606a}.met{stroke:#1a7f37;fill:#1a7f37}.missed{stroke:#b35900;"
         "fill:#b35900}.plain{stroke:#3b6ea5;fill:#3b6ea5}.goal{stroke:#1b1f24;stroke-width:2}")


def _place(x, low, high):
    return LEFT + WIDTH * (log10(x) - low) / (high - low)


def _row(row, y, low, high):
    ratios = row["ratios"]
    style = {True: "met", False: "missed", None: "plain"}[row["met"]]
    at = [_place(x, low, high) for x in (min(ratios), median(ratios), max(ratios))]
    text = f"{row['what']} / {row['contender']}"
    text = text if len(text) <= 72 else text[:71] + "\u2026"
    parts = [f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(text)}</text>',
             f'<line class="{style}" x1="{at[0]:.1f}" x2="{at[2]:.1f}" y1="{y}" y2="{y}" '
             'stroke-width="3"/>',
             f'<circle class="{style}" cx="{at[1]:.1f}" cy="{y}" r="5"/>',
             f'<text x="{LEFT + WIDTH + 12}" y="{y + 4}">{median(ratios):.3g}'
             f'{" goal " + escape(row["goal"]) if row["goal"] else ""}</text>']
    if row["goal"]:
        goal = _place(float(row["goal"].split()[1]), low, high)
        parts.append(f'<line class="goal" x1="{goal:.1f}" x2="{goal:.1f}" y1="{y - 8}" '
                     f'y2="{y + 8}"/>')
    return parts


def svg(table):
    """Text of an SVG file, or None when nothing was compared."""
    rows = [row for row in table.rows if row["ratios"]]
    if not rows:
        return None
    ends = [x for row in rows for x in row["ratios"]]
    ends += [float(row["goal"].split()[1]) for row in rows if row["goal"]]
    low, high = floor(log10(min(ends))), max(ceil(log10(max(ends))), 1)
    body, y, group = [], TOP, None
    for row in rows:
        if row["group"] != group:
            group = row["group"]
            body.append(f'<text class="g" x="8" y="{y + 4}">{escape(group)}</text>')
            y += ROW
        body += _row(row, y, low, high)
        y += ROW
    axis = []
    for power in range(low, high + 1):
        x = _place(10.0 ** power, low, high)
        axis += [f'<line class="{"one" if power == 0 else "axis"}" x1="{x:.1f}" x2="{x:.1f}" '
                 f'y1="{TOP - 14}" y2="{y - 8}"/>',
                 f'<text x="{x:.1f}" y="{TOP - 20}" text-anchor="middle">{10.0 ** power:g}</text>']
    size = f'width="{LEFT + WIDTH + RIGHT}" height="{y + 8}"'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>'
            f'<rect {size} fill="#fff"/><text class="g" x="8" y="18">sidenote / contender: median '
            'and spread of the rounds; the black mark is the goal</text>'
            + "".join(axis + body) + "</svg>\n")
