#include "probe.h"

size_t probe_choose(const struct probe *p, const struct state_pair *v, size_t n)
{
	size_t best = 0, width = probe_width(p) < n ? probe_width(p) : n;

	for (size_t i = 1; i < width; i++)
		if (!v[i].tombstone && (v[best].tombstone || v[i].old_offset > v[best].old_offset))
			best = i;
	return v[0].tombstone && v[0].old_offset > v[best].old_offset ? 0 : best;
}

/* How many leading pairs are gone if v[i] is. */
static size_t implied(const struct state_pair *v, size_t i)
{
	size_t n = 0;

	if (v[i].tombstone)
		return 1; /* it is the first */
	while (n <= i && (!v[n].tombstone || v[n].old_offset < v[i].old_offset))
		n++;
	return n;
}

size_t probe_learn(struct probe *p, const struct state_pair *v, size_t i, bool gone, bool *stuck)
{
	size_t width = probe_width(p);

	*stuck = !gone && i == 0;
	if (gone)
		p->width = width < PROBE_WIDTH_MAX ? width * 2 : PROBE_WIDTH_MAX;
	else
		p->width = *stuck ? 1 : width / 2;
	return gone ? implied(v, i) : 0;
}

int64_t probe_wait_ms(int64_t wait_ms, bool grew)
{
	int64_t max = grew ? PROBE_WAIT_MAX_MS : PROBE_WAIT_IDLE_MAX_MS;

	if (wait_ms < PROBE_WAIT_MIN_MS / 2)
		return PROBE_WAIT_MIN_MS;
	return wait_ms * 2 < max ? wait_ms * 2 : max;
}
