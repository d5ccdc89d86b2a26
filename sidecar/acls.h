/*
 * acls.h - the rights of Kafka that a pipeline needs: all of them, and none more.
 *
 *   struct acl a[ACLS_MAX];
 *   int n = acls_needed(&config, a);
 *   acls_print(&config, stdout);      // a table, and the commands that grant them
 *
 * Pure: asks nobody.
 */
#ifndef ACLS_H
#define ACLS_H

#include "config.h"

enum acl_resource { ACL_TOPIC, ACL_GROUP, ACL_TRANSACTIONAL_ID };

struct acl {
	enum acl_resource resource;
	char name[300];
	const char *operation; /* as kafka-acls.sh spells it */
	const char *why;
};
enum { ACLS_MAX = 16 };

/** Those of one resource stand together. */
int acls_needed(const struct config *c, struct acl out[ACLS_MAX]);
/** As kafka-acls.sh spells it: topic, group, transactional-id. */
const char *acls_resource(enum acl_resource r);
/** A script: the table as comments, then one command for each resource. */
void acls_print(const struct config *c, FILE *f);

#endif
