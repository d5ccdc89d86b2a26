#include "history.h"

#include <string.h>

void history_init(struct history *h)
{
	memset(h, 0, sizeof(*h));
	pthread_mutex_init(&h->lock, NULL);
}

void history_free(struct history *h) { pthread_mutex_destroy(&h->lock); }

static uint64_t notes_so_far(void)
{
	return (uint64_t)(metrics_value(METRIC_NOTIFIED_CREATE) +
			  metrics_value(METRIC_NOTIFIED_UPDATE) +
			  metrics_value(METRIC_NOTIFIED_DELETE));
}

/* What was observed since *last, which moves on. */
static void take(enum metric m, struct metrics_histogram *last, int64_t *p50, int64_t *p99)
{
	struct metrics_histogram now, since;

	metrics_histogram(m, &now);
	since = now;
	for (int i = 0; i < now.n; i++)
		since.count[i] -= last->count[i];
	since.total -= last->total;
	*p50 = metrics_quantile(&since, 0.5);
	*p99 = metrics_quantile(&since, 0.99);
	*last = now;
}

void history_sample(struct history *h)
{
	int64_t now_us = metrics_clock_us();
	uint64_t records = (uint64_t)metrics_value(METRIC_RECORDS_CONSUMED), notes = notes_so_far();
	double seconds = (double)(now_us - h->us) / 1e6;
	bool first = !h->us;
	struct history_sample s = { 0 };

	take(METRIC_SNAPSHOT_LATENCY_US, &h->snapshot, &s.snapshot_p50, &s.snapshot_p99);
	take(METRIC_NOTIFICATION_LATENCY_US, &h->note, &s.note_p50, &s.note_p99);
	s.records = (double)(records - h->records) / seconds;
	s.notes = (double)(notes - h->notes) / seconds;
	h->us = now_us;
	h->records = records;
	h->notes = notes;
	if (first)
		return; /* since when is not known */
	pthread_mutex_lock(&h->lock);
	h->ring[h->n++ % HISTORY_SAMPLES] = s;
	pthread_mutex_unlock(&h->lock);
}

int history_copy(struct history *h, struct history_sample out[HISTORY_SAMPLES])
{
	pthread_mutex_lock(&h->lock);
	uint64_t from = h->n > HISTORY_SAMPLES ? h->n - HISTORY_SAMPLES : 0;
	int n = (int)(h->n - from);
	for (int i = 0; i < n; i++)
		out[i] = h->ring[(from + (uint64_t)i) % HISTORY_SAMPLES];
	pthread_mutex_unlock(&h->lock);
	return n;
}
