#include "probe.h"

size_t probe_choose(const struct probe *p, const struct state_pair *v, size_t n)
{
	size_t best = 0, width = probe_width(p) < n ? probe_width(p) : n;

	for (size_t i = 1; i < width; i++)
		if (v[i].old_offset > v[best].old_offset)
			best = i;
	return best;
}

size_t probe_learn(struct probe *p, size_t i, bool gone, bool *stuck)
{
	size_t width = probe_width(p);

	*stuck = !gone && width == 1;
	if (gone)
		p->width = width < PROBE_WIDTH_MAX ? width * 2 : PROBE_WIDTH_MAX;
	else
		p->width = width / 2;
	return gone ? i + 1 : 0;
}
