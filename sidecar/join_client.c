#include "join_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_MS "8000" /* less than JOIN_TRANSACTION_MS */

/* For kafka_new() to read. */
static struct config_pair pair(const char *key, const char *value)
{
	return (struct config_pair){ .key = (char *)key, .value = (char *)value };
}

static size_t put_own(struct join_client *k, enum join_use use, struct config_pair *v)
{
	size_t n = 0;

	v[n++] = pair("client.id", k->id);
	if (use == JOIN_PRODUCER) {
		v[n++] = pair("transactional.id", k->transactional_id);
		v[n++] = pair("transaction.timeout.ms", k->transaction_ms);
		v[n++] = pair("message.timeout.ms", MESSAGE_MS);
		return n;
	}
	v[n++] = pair("group.id", k->group);
	if (use == JOIN_CONSUMER) {
		v[n++] = pair("fetch.wait.max.ms", "100");
		/* a full local queue stalls the fetcher for up to a second before librdkafka 2.2 */
		v[n++] = pair("queued.min.messages", "1000000");
		v[n++] = pair("queued.max.messages.kbytes", "65536");
	}
	return n;
}

int join_client_init(struct join_client *k, const struct join_config *c, enum join_use use)
{
	static const enum kafka_role roles[] = { [JOIN_CONSUMER] = KAFKA_OWNER,
						 [JOIN_QUERY] = KAFKA_QUERY,
						 [JOIN_PEEK] = KAFKA_PEEK,
						 [JOIN_PRODUCER] = KAFKA_PUBLISH };
	static const char *const names[] = { [JOIN_CONSUMER] = "stream",
					     [JOIN_QUERY] = "query",
					     [JOIN_PEEK] = "peek",
					     [JOIN_PRODUCER] = "output" };
	size_t n;

	*k = (struct join_client){ .role = roles[use] };
	snprintf(k->group, sizeof(k->group), "sidenote-join.%s", c->name);
	snprintf(k->id, sizeof(k->id), "sidenote-join-%s-%s-%s", c->name, c->instance_id,
		 names[use]);
	/* no name has a slash: no two instances have one id */
	snprintf(k->transactional_id, sizeof(k->transactional_id), "sidenote-join.%s/%s", c->name,
		 c->instance_id);
	snprintf(k->transaction_ms, sizeof(k->transaction_ms), "%d", JOIN_TRANSACTION_MS);
	k->own = calloc(c->kafka.n + 8, sizeof(*k->own));
	if (!k->own)
		return -ENOMEM;
	n = put_own(k, use, k->own);
	if (c->kafka.n)
		memcpy(k->own + n, c->kafka.v, c->kafka.n * sizeof(*k->own));
	k->config.kafka = (struct config_pairs){ k->own, n + c->kafka.n };
	k->config.consumer = c->consumer;
	k->config.producer = c->producer;
	return 0;
}

void join_client_free(struct join_client *k)
{
	free(k->own);
	*k = (struct join_client){ 0 };
}
