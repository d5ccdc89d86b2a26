/* version.h - what is running: sidenote, and the libraries that it found at run time. */
#ifndef VERSION_H
#define VERSION_H

#include <stdio.h>

/** One line each: sidenote, librdkafka, LMDB. */
void version_print(FILE *f);

#endif
