# One Makefile for the whole repository: no configure step, lists by wildcard.  See CONTRIBUTING.md.
#
#   make               build: build/sidenote, build/libsharedstate.{a,so}, build/sharedstate.pc
#   make demo          install what building takes, build, and watch the main job work
#   make test          install what testing takes, build, then: unit, lint, integration
#   make unit|lint|integration|prove|bench|fuzz       one of them alone
#   make simulate SEEDS=1-10000    the sidecar over a model of Kafka, one run for each seed
#   make torture SECONDS=300 SEED=1    everything that breaks it on purpose, and one table
#   make nightly       the same for hours, and a million runs of each fuzz target
#   make plants        bugs on purpose: the simulation must find each
#   make points SEEDS=1-10000      the simulation with deaths at each point of tests/faults/points
#   make deps          install what is missing (Debian 12 and 13)
#   make fmt|docs      apply .clang-format; refresh what is generated from the program
#   make install       PREFIX=/usr/local DESTDIR=
#
#   CC=clang           another compiler           SAN=address|thread  sanitizers, in build-$(SAN)
#   WERROR=1           warnings are errors        V=1                 print whole commands
#   FAULTS=1           with the points of tests/faults/points, in build-faults
#   UNIT='build/tests/test_log ...'               only these of the unit tests

PREFIX     ?= /usr/local
LIBDIR     ?= $(PREFIX)/lib
DESTDIR    ?=
PKG_CONFIG ?= pkg-config
# Debian's own: the one that sees python3-confluent-kafka and the like, whatever else is in PATH.
PYTHON     ?= /usr/bin/python3
# test classes side by side; each has a broker of its own
JOBS ?= 3
FUZZ_SECONDS ?= 60
SEEDS ?= 1-10000

# The version has one place.  The soname changes when programs have to be linked again.
VERSION := $(or $(shell sed -n 's/^\#define SSTATE_VERSION "\(.*\)"/\1/p' \
	shared-state/shared_state.h 2>/dev/null),0.1.0)
SONAME  := libsharedstate.so.0

Q    := $(if $(V),,@)
comma := ,
say   = $(if $(V),,@echo '  $1 $@')

B := build$(if $(SAN),-$(SAN))$(if $(FAULTS),-faults)
export BUILD := $B
export SIDENOTE := $B/sidenote

# ---- flags ----

LIB_PACKAGES  := lmdb libcrypto libxxhash
# TLS to Redis is there where hiredis has it (1.0 and later).
REDIS_TLS     := $(shell $(PKG_CONFIG) --exists hiredis_ssl openssl 2>/dev/null && \
	echo hiredis_ssl openssl)
PACKAGES      := rdkafka hiredis $(REDIS_TLS) libmicrohttpd $(LIB_PACKAGES)
pkg = $(shell $(PKG_CONFIG) $1 2>/dev/null)

# Those of the hardening flags that this compiler has, on this machine.
HARDENING := $(shell for f in -fstack-protector-strong -fstack-clash-protection -fcf-protection \
	-ftrivial-auto-var-init=zero; do $(CC) -Werror $$f -fsyntax-only -x c /dev/null \
	2>/dev/null && echo $$f; done)

CFLAGS ?= -O2 -g
override CFLAGS += -std=gnu11 -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wwrite-strings -Wvla -Wpointer-arith -Wformat-security $(if $(WERROR),-Werror) \
	-fPIC -fvisibility=hidden -pthread $(HARDENING)
override CPPFLAGS += -D_GNU_SOURCE -DSIDENOTE_VERSION='"$(VERSION)"' -Ishared-state -Isidecar \
	$(call pkg,--cflags $(PACKAGES)) $(if $(REDIS_TLS),-DHAVE_HIREDIS_SSL)
override LDFLAGS += -pthread -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed

ifeq ($(SAN),)
override CPPFLAGS += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3
else ifeq ($(SAN),address)
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all
else ifeq ($(SAN),thread)
SANITIZE := -fsanitize=thread
else ifeq ($(SAN),fuzz)
SANITIZE := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
else
$(error SAN=$(SAN): not one of address, thread)
endif
override CFLAGS  += $(if $(SAN),-O1 -fno-omit-frame-pointer $(SANITIZE))
override LDFLAGS += $(SANITIZE)
override CPPFLAGS += $(if $(FAULTS),-DFAULTS)
FAULT_OBJ := $(if $(FAULTS),$B/tests/faults/fault.o)
# ThreadSanitizer does not know the C11 threads that librdkafka uses.
TSAN_OBJ := $(if $(filter thread,$(SAN)),$B/tests/tsan_c11_threads.o)

LIBS     := $(or $(call pkg,--libs $(PACKAGES)),-lrdkafka -lhiredis -lmicrohttpd -llmdb -lcrypto \
	-lxxhash)
LIB_LIBS := $(or $(call pkg,--libs $(LIB_PACKAGES)),-llmdb -lcrypto -lxxhash)
CMOCKA   := $(or $(call pkg,--libs cmocka),-lcmocka)

# ---- what there is to build ----

LIB_OBJ  := $(patsubst %.c,$B/%.o,$(wildcard shared-state/*.c))
MAIN_OBJ := $B/sidecar/main.o
MOD_OBJ  := $(filter-out $(MAIN_OBJ),$(patsubst %.c,$B/%.o,$(wildcard sidecar/*.c)))
TESTS    := $(patsubst %.c,$B/%,$(wildcard tests/test_*.c))
FUZZERS  := $(patsubst %.c,$B/%,$(wildcard tests/fuzz/fuzz_*.c))
BENCHES  := $(patsubst %.c,$B/%,$(wildcard tests/bench/bench_*.c))
SIM      := $B/tests/simulation/run
SIM_OBJ  := $(patsubst %.c,$B/%.o,$(wildcard tests/simulation/*.c))
UNIT     ?= $(TESTS)
SO       := $B/libsharedstate.so.$(VERSION)

# A sanitized shared object would need its sanitizer in every program that loads it.
all: $B/sidenote $B/libsharedstate.a $(if $(SAN)$(FAULTS),,$(SO) $B/sharedstate.pc)
tests: $(TESTS)

$B/libsharedstate.a: $(LIB_OBJ)
	@rm -f $@
	$(call say,AR)
	$(Q)$(AR) rcs $@ $^
# -z defs: the library must not need a symbol that its few libraries do not have.
$(SO): $(LIB_OBJ)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -shared -Wl,-soname,$(SONAME) -Wl,-z,defs -o $@ $^ $(LIB_LIBS)
	@ln -sf $(@F) $B/$(SONAME) && ln -sf $(SONAME) $B/libsharedstate.so
$B/sidenote: $(MAIN_OBJ) $(MOD_OBJ) $(TSAN_OBJ) $(FAULT_OBJ) $B/libsharedstate.a
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -pie -o $@ $^ $(LIBS)

# Before libc, so that calls can be made to fail, or watched: see tests/faults/interpose.h.
INTERPOSED := $(addprefix $B/tests/faults/,interpose.o small.o disk.o)
$B/tests/test_nth_failure $B/tests/test_power_cut: $(INTERPOSED)
# Preloaded by tests whose program's wall clock jumps.
CLOCK := $B/tests/clock.so
$(CLOCK): $B/tests/faults/clock.o
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -shared -o $@ $^
# One program per tests/test_*.c, linked with all there is except main().
$B/tests/%: $B/tests/%.o $(MOD_OBJ) $(TSAN_OBJ) $(FAULT_OBJ) $B/libsharedstate.a
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -pie -o $@ $^ $(LIBS) $(CMOCKA)
# The program's own objects over a simulated Kafka (tests/simulation/sim.h).  Without librdkafka:
# what of it the program calls must be in tests/simulation/, or this does not link.
SIM_WRAP := pthread_create pthread_join pthread_clockjoin_np pthread_mutex_init \
	pthread_mutex_destroy pthread_mutex_lock pthread_mutex_trylock pthread_mutex_unlock \
	pthread_cond_init pthread_cond_destroy pthread_cond_wait pthread_cond_timedwait \
	pthread_cond_signal pthread_cond_broadcast clock_gettime usleep nanosleep \
	open64 openat64 close fdopendir fopen64 renameat getrandom isatty fork _exit \
	mdb_env_create mdb_env_close mdb_txn_begin mdb_txn_commit mdb_txn_abort log_write \
	state_make_durable state_trim state_journal decide_fitness decide_is_whole \
	decide_round_due decide_may_resume publish_start kafka_committed scan_misses told_last \
	pipeline_applied tail_start kafka_ending
$B/tests/simulation/sidecar.a: $(MOD_OBJ)
	@mkdir -p $(@D) && rm -f $@
	$(call say,AR)
	$(Q)$(AR) rcs $@ $^
$(SIM): $(SIM_OBJ) $B/tests/simulation/sidecar.a $B/libsharedstate.a
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -pie -Wl,-Map,$@.map $(addprefix -Wl$(comma)--wrap=,$(SIM_WRAP)) -o $@ $^ \
		$(filter-out -lrdkafka,$(LIBS))
$B/tests/fuzz/%: $B/tests/fuzz/%.o $(MOD_OBJ) $B/libsharedstate.a
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LIBS)
$B/%.o: %.c $B/.flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# It has these in it as they are.
$B/sidecar/status_page.o: sidecar/status_page.css sidecar/status_page.js

# Rewritten only when it differs, so that another compiler or flag rebuilds, and nothing else does.
rewrite = mkdir -p $(@D); cat >$@.$$$$; cmp -s $@.$$$$ $@ && rm $@.$$$$ || mv $@.$$$$ $@
$B/.flags: FORCE
	@echo '$(subst ','\'',$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) $(LIBS))' | { $(rewrite); }

define PC
prefix=$(PREFIX)
libdir=$(LIBDIR)
includedir=$${prefix}/include

Name: sharedstate
Description: Reads the snapshot that sidenote keeps of a compacted Kafka topic
Version: $(VERSION)
Requires.private: $(LIB_PACKAGES)
Libs: -L$${libdir} -lsharedstate
Cflags: -I$${includedir}
endef
export PC
$B/sharedstate.pc: FORCE
	@echo "$$PC" | { $(rewrite); }

# ---- run ----

# In two steps: what `deps` installs decides about flags and libraries, which are settled while
# this file is read.
AGAIN = $(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))

deps:
	@tests/deps
demo:
	@tests/deps build
	@$(AGAIN) $B/sidenote
	@$B/sidenote demo
test:
	@tests/deps
	@$(AGAIN) all tests
	@$(AGAIN) unit
	@$(AGAIN) lint
	@$(AGAIN) few-fuzz
	@$(AGAIN) integration

# A few seeds of the simulation, unless somebody has chosen what to run.
unit: $(UNIT) $(if $(or $(SAN),$(filter command environment,$(firstword $(origin UNIT)))),,few-seeds)
	@failed=; for t in $(UNIT); do echo "== $$t"; $$t || failed="$$failed $$t"; done; \
	if [ "$$failed" ]; then echo "unit: FAILED:$$failed"; exit 1; fi; \
	echo "unit: $(words $(UNIT)) programs, all passed"
few-seeds: $(SIM)
	@echo "== $(SIM)"; $(SIM) --seeds 1-200
simulate: $(SIM)
	@$(SIM) --seeds $(SEEDS) --jobs $(shell nproc)
plants: $(SIM)
	@tests/simulation/plants
points:
	@$(AGAIN) FAULTS=1 build-faults/tests/simulation/run
	@build-faults/tests/simulation/run --points --seeds $(SEEDS) --jobs $(shell nproc)
lint: $B/sidenote $(if $(SAN)$(FAULTS),,$(SO) $(SIM))
	@failed=; for t in tests/lint/*; do $$t || failed="$$failed $${t##*/}"; done; \
	if [ "$$failed" ]; then echo "lint: FAILED:$$failed"; exit 1; fi; echo "lint: all passed"
integration: all $(CLOCK)
	@$(PYTHON) tests/integration/run.py --jobs $(JOBS)
prove: all
	@$(AGAIN) FAULTS=1 build-faults/sidenote
	@set -e; for t in $(wildcard tests/prove/*.py); do echo "== $$t"; $(PYTHON) $$t; done
# Some minutes more than SECONDS; ends with one table.
torture: all tests $(SIM)
	@$(AGAIN) FAULTS=1 build-faults/sidenote
	@$(PYTHON) tests/torture
# As long as a night; its seed is the date, so that each is another one and can be repeated.
nightly:
	@$(MAKE) --no-print-directory torture SECONDS=$(or $(SECONDS),7200) \
		SEED=$(or $(SEED),$(shell date +%Y%m%d)) NIGHTLY=1
bench: all $(BENCHES)
	@$(PYTHON) tests/bench/run

# A build of its own: coverage for the fuzzer in every object.  Corpus and findings stay in it.
fuzz:
	@tests/deps fuzz
	@$(AGAIN) SAN=fuzz CC=clang run-fuzz
run-fuzz: $(FUZZERS)
	@set -e; for t in $(FUZZERS); do echo "== $$t"; mkdir -p $$t.corpus; \
	$$t -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=$$t. -verbosity=0 \
		-print_final_stats=1 $$t.corpus; done

# As part of the tests: FUZZ_RUNS of each or FUZZ_MOST seconds (0: however long it takes), from
# the corpora in the tree.
FUZZ_RUNS ?= 1000000
FUZZ_MOST ?= 20
few-fuzz:
	@tests/deps fuzz
	@$(AGAIN) SAN=fuzz CC=clang run-few-fuzz
run-few-fuzz: $(FUZZERS:=.few)
$(FUZZERS:=.few): %.few: %
	@mkdir -p $*.corpus; $* -max_len=600 -runs=$(FUZZ_RUNS) -max_total_time=$(FUZZ_MOST) \
		-verbosity=0 -print_final_stats=1 -artifact_prefix=$*. $*.corpus \
		$(wildcard tests/fuzz/corpus/$(*F)) >$*.log 2>&1 || { cat $*.log; exit 1; }
	@echo "== $*: $$(sed -n 's/^stat::number_of_executed_units: *//p' $*.log) runs"

# Twice: it does not always agree with itself at once.
fmt:
	clang-format -i $(wildcard */*.[ch] tests/*/*.[ch])
	@clang-format -i $(wildcard */*.[ch] tests/*/*.[ch])
docs: $B/sidenote
	$B/sidenote help options >docs/options.md
	$B/sidenote help metrics >docs/metrics.md
	$B/sidenote help join-options >docs/join-options.md

# ---- install ----

install: all
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin include share/man/man1 lib/systemd/system) \
		$(DESTDIR)$(LIBDIR)/pkgconfig
	install $B/sidenote $(DESTDIR)$(PREFIX)/bin
	install -m 644 shared-state/shared_state.h $(DESTDIR)$(PREFIX)/include
	install -m 644 $B/libsharedstate.a $(SO) $(DESTDIR)$(LIBDIR)
	ln -sf $(notdir $(SO)) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libsharedstate.so
	install -m 644 $B/sharedstate.pc $(DESTDIR)$(LIBDIR)/pkgconfig
	sed 's,/usr/local,$(PREFIX),' sidecar/sidenote@.service \
		>$(DESTDIR)$(PREFIX)/lib/systemd/system/sidenote@.service
	$(if $(wildcard docs/man/*.1),install -m 644 $(wildcard docs/man/*.1) \
		$(DESTDIR)$(PREFIX)/share/man/man1)

# build/kafka, the broker that the tests run, is a download: `make distclean` removes that too.
clean:
	rm -rf build-address build-thread build-fuzz
	find build -mindepth 1 -maxdepth 1 ! -name kafka -exec rm -rf {} + 2>/dev/null || true
distclean: clean
	rm -rf build

.PHONY: all tests $(FUZZERS:=.few) few-fuzz run-few-fuzz deps demo test unit few-seeds simulate plants points lint integration prove torture nightly bench fuzz run-fuzz \
	fmt docs install clean distclean FORCE
.SECONDARY:
.DELETE_ON_ERROR:
-include $(patsubst %.o,%.d,$(LIB_OBJ) $(MAIN_OBJ) $(MOD_OBJ) $(TESTS:=.o) $(FUZZERS:=.o) $(TSAN_OBJ) \
	$(SIM_OBJ) $(INTERPOSED) $B/tests/faults/clock.o)
