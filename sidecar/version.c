#include "version.h"

#include "redis.h"
#include "state.h"

#include <librdkafka/rdkafka.h>

void version_print(FILE *f)
{
	fprintf(f, "sidenote %s\nlibrdkafka %s\n%s\n%s\n", SIDENOTE_VERSION, rd_kafka_version_str(),
		state_engine(), redis_library());
}
