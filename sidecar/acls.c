#include "acls.h"

#include <string.h>

/* When a right is needed. */
enum needed { ALWAYS, LEADING, PUBLISHING, CREATING, COMPACTED, COMPACTED_CREATING };
/* What it is a right on. */
enum on { SOURCE, NOTIFICATIONS, GONE, GROUP, TRANSACTIONAL_ID };

/*
 * Each row with the requests that need it.  No Describe: Read and Write imply it
 * where Kafka's own authorizer decides.
 */
static const struct row {
	enum on on;
	const char *operation;
	enum needed needed;
	const char *why;
} rows[] = {
	{ SOURCE, "Read", ALWAYS, "read the records; commit offsets (Fetch, TxnOffsetCommit)" },
	{ SOURCE, "DescribeConfigs", ALWAYS, "is it compacted, how long are tombstones kept" },
	{ NOTIFICATIONS, "Write", PUBLISHING, "publish (AddPartitionsToTxn, Produce)" },
	{ NOTIFICATIONS, "Read", PUBLISHING, "in a round: what was told already" },
	{ NOTIFICATIONS, "DescribeConfigs", PUBLISHING, "max.message.bytes, retention, policy" },
	{ NOTIFICATIONS, "Create", CREATING, "notifications.create=true (CreateTopics)" },
	{ GONE, "Write", COMPACTED,
	  "publish what compaction removed (AddPartitionsToTxn, Produce)" },
	{ GONE, "DescribeConfigs", COMPACTED, "max.message.bytes, retention, policy" },
	{ GONE, "Create", COMPACTED_CREATING, "notifications.create=true (CreateTopics)" },
	{ GROUP, "Read", LEADING, "who leads; commit offsets (JoinGroup, TxnOffsetCommit)" },
	{ TRANSACTIONAL_ID, "Write", PUBLISHING, "transactions (InitProducerId, EndTxn)" },
};
enum { N_ROWS = sizeof(rows) / sizeof(*rows) };

static const enum acl_resource resource_of[] = { ACL_TOPIC, ACL_TOPIC, ACL_TOPIC, ACL_GROUP,
						 ACL_TRANSACTIONAL_ID };

static void put_name(const struct config *c, enum on on, char *out, size_t len)
{
	if (on == SOURCE)
		snprintf(out, len, "%s", c->source_topic);
	else if (on == NOTIFICATIONS)
		snprintf(out, len, "%s", c->notifications_topic);
	else if (on == GONE)
		snprintf(out, len, "%s", c->compacted_topic);
	else
		snprintf(out, len, "sidenote.%s", c->name);
}

int acls_needed(const struct config *c, struct acl out[ACLS_MAX])
{
	bool publishing = c->notifications_topic[0], leading = publishing || c->redis_uri[0];
	int n = 0;

	for (int i = 0; i < N_ROWS; i++) {
		const struct row *r = &rows[i];

		if ((r->needed >= PUBLISHING && !publishing) ||
		    (r->needed == LEADING && !leading) ||
		    (r->needed >= COMPACTED && !c->compacted_topic[0]) ||
		    ((r->needed == CREATING || r->needed == COMPACTED_CREATING) &&
		     !c->notifications_create))
			continue;
		out[n] = (struct acl){ .resource = resource_of[r->on],
				       .operation = r->operation,
				       .why = r->why };
		put_name(c, r->on, out[n].name, sizeof(out[n].name));
		n++;
	}
	return n;
}

const char *acls_resource(enum acl_resource r)
{
	static const char *const names[] = { "topic", "group", "transactional-id" };
	return names[r];
}

/* ---- printing ---- */

static const char *property(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->kafka.n; i++)
		if (!strcmp(c->kafka.v[i].key, name))
			return c->kafka.v[i].value;
	return NULL;
}

/* One word of a shell, whatever is in it. */
static void put_word(const char *text, FILE *f)
{
	fputc('\'', f);
	for (; *text; text++)
		if (*text == '\'')
			fputs("'\\''", f);
		else
			fputc(*text, f);
	fputc('\'', f);
}

static void put_table(const struct acl *a, int n, const struct config *c, FILE *f)
{
	char resource[320];
	int width = 0;

	for (int i = 0; i < n; i++) {
		int len = (int)(strlen(acls_resource(a[i].resource)) + 1 + strlen(a[i].name));
		width = len > width ? len : width;
	}
	fprintf(f, "# Rights of pipeline %s.\n#\n# %-15s  %-*s  %s\n", c->name, "operation", width,
		"resource", "why");
	for (int i = 0; i < n; i++) {
		snprintf(resource, sizeof(resource), "%s %s", acls_resource(a[i].resource),
			 a[i].name);
		fprintf(f, "# %-15s  %-*s  %s\n", a[i].operation, width, resource, a[i].why);
	}
}

static bool same_resource(const struct acl *a, const struct acl *b)
{
	return a->resource == b->resource && !strcmp(a->name, b->name);
}

static void put_command(const struct acl *a, int n, const struct config *c, FILE *f)
{
	const char *servers = property(c, "bootstrap.servers");
	const char *user = property(c, "sasl.username");
	char principal[300];

	snprintf(principal, sizeof(principal), "User:%s", user ? user : "NAME");
	fputs("kafka-acls.sh --bootstrap-server ", f);
	put_word(servers ? servers : "BROKERS", f);
	fputs(" --add --allow-principal ", f);
	put_word(principal, f);
	fputs(" \\\n\t", f);
	for (int i = 0; i < n; i++)
		fprintf(f, "--operation %s ", a[i].operation);
	fprintf(f, "--%s %s\n", acls_resource(a->resource), a->name);
}

void acls_print(const struct config *c, FILE *f)
{
	struct acl a[ACLS_MAX];
	int n = acls_needed(c, a), of_one;

	put_table(a, n, c, f);
	fputs("#\n# Kafka's own authorizer takes Read and Write for Describe; another may want it, "
	      "too.\n",
	      f);
	if (!property(c, "sasl.username"))
		fputs("#\n# User:NAME stands for the principal that it connects as.\n", f);
	fputs("\n", f);
	for (int i = 0; i < n; i += of_one) {
		for (of_one = 1; i + of_one < n && same_resource(&a[i], &a[i + of_one]); of_one++)
			;
		put_command(&a[i], of_one, c, f);
	}
}
