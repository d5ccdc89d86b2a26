/*
 * The power goes, hundreds of times: what the program did to its state directory
 * is recorded, and played again up to any moment, with what had not been synced
 * lost, kept, or a bit of both (faults/disk.h).
 *
 * What is found then has to open, be the fold of the log up to its A, have a
 * journal that reaches from P to A without a hole, and P <= A, where P is what
 * had been published by the program's own rule (design rule 2) when the power
 * went.  And it has to be usable.  The next life begins with what the last one left.
 *
 * SEED=n settles what is done and when it is cut, though not into which pages LMDB puts it, as
 * leases go by the clock; CUTS=n is how many cuts.
 */
#include "harness.h"
#include "faults/disk.h"
#include "faults/interpose.h"
#include "faults/small.h"

#include <sys/mman.h>
#include <time.h>

enum { CUTS_OF_A_LIFE = 10, LIVES_OF_A_DIRECTORY = 12, MARKS_MAX = 64, WHY_BYTES = 1000 };

/* P as it is from an event on. */
struct mark {
	size_t event;
	int64_t published[SMALL_PARTITIONS];
};

struct counts {
	long cuts, right, absent, unreadable, wrong, lives, rebuilds, syncs_failed;
};

struct world {
	char dir[300], image[300];
	uint64_t seed;
	struct small small;
	bool has_state; /* a generation was current and durable when this life began */
	struct mark marks[MARKS_MAX];
	int n_marks;
	struct counts counts;
};

/* ---- a life ---- */

static void mark(struct world *w)
{
	struct mark *m = &w->marks[w->n_marks++];
	assert_true(w->n_marks <= MARKS_MAX);
	m->event = disk_events();
	memcpy(m->published, w->small.published, sizeof(m->published));
}

static int publish(struct world *w)
{
	int rc = small_publish(&w->small);
	if (!rc)
		mark(w);
	return rc;
}

static int rebuild(struct world *w)
{
	w->counts.rebuilds++;
	int rc = small_rebuild(&w->small);
	mark(w);
	return rc;
}

static int act(struct world *w)
{
	uint64_t what = disk_random(&w->seed, 100);
	if (what < 55)
		return small_batch(&w->small, 1 + (int)disk_random(&w->seed, 40));
	if (what < 88)
		return publish(w);
	if (what < 93)
		return rebuild(w);
	if (what < 95 && w->small.published[0] >= 0)
		return small_refill(&w->small);
	small_stop(&w->small); /* or killed: it is all the same to the file */
	return small_start(&w->small);
}

/* Now and then a sync fails meanwhile.  The program ends then and is started again. */
static int act_with_faults(struct world *w)
{
	static const int errors[] = { EIO, ENOSPC };
	if (disk_random(&w->seed, 5))
		return act(w);
	interpose_arm(&(struct fault){ CALL_SYNC, 1 + (long)disk_random(&w->seed, 3),
				       errors[disk_random(&w->seed, 2)], false });
	int rc = act(w);
	w->counts.syncs_failed += interpose_hit();
	interpose_disarm();
	if (!rc)
		return 0;
	small_stop(&w->small);
	return small_start(&w->small);
}

/* True: as it should go. */
static bool live(struct world *w)
{
	int n = 5 + (int)disk_random(&w->seed, 10);
	bool ok = true;
	w->small.path = w->dir;
	w->n_marks = 0;
	w->counts.lives++;
	disk_record(w->dir);
	mark(w);
	w->small.fills = 0;
	if (small_start(&w->small) || (w->small.fills && w->has_state))
		ok = false;
	for (int i = 0; i < n && ok; i++)
		if (act_with_faults(w))
			fail_msg("%s", w->small.err);
	disk_stop();
	small_stop(&w->small);
	return ok;
}

/* ---- a cut ---- */

static char *why; /* shared with the child: WHY_BYTES */

static void take_published(struct world *w, size_t event)
{
	for (int i = 0; i < w->n_marks; i++)
		if (w->marks[i].event <= event)
			memcpy(w->small.published, w->marks[i].published,
			       sizeof(w->small.published));
}

enum found { FOUND_RIGHT, FOUND_ABSENT, FOUND_UNREADABLE, FOUND_WRONG };

static enum found look(struct small *s)
{
	enum found found = FOUND_RIGHT;
	s->fills = s->unreadable = 0;
	int rc = small_start(s);
	if (s->unreadable)
		snprintf(why, WHY_BYTES, "%s", s->complaint);
	if (s->fills)
		found = s->unreadable ? FOUND_UNREADABLE : FOUND_ABSENT;
	if (rc)
		snprintf(why, WHY_BYTES, "does not open: %s", s->err);
	if (rc || small_check(s, why, WHY_BYTES))
		return FOUND_WRONG;
	if (small_batch(s, 20) || small_publish(s) || small_batch(s, 5)) {
		snprintf(why, WHY_BYTES, "does not go on: %s", s->err);
		return FOUND_WRONG;
	}
	if (small_check(s, why, WHY_BYTES))
		return FOUND_WRONG;
	return found;
}

static enum found look_in_child(const struct small *small)
{
	int status;
	struct small s = *small;
	pid_t child = fork();
	snprintf(why, WHY_BYTES, "nothing said");
	assert_true(child >= 0);
	if (!child) {
		alarm(60);
		_exit(look(&s));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFSIGNALED(status))
		snprintf(why, WHY_BYTES, "signal %d", WTERMSIG(status));
	return WIFSIGNALED(status) ? FOUND_WRONG : (enum found)WEXITSTATUS(status);
}

static void remove_tree(const char *path) { nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }

static bool was_published(const struct world *w) { return w->small.published[0] >= 0; }

/* With a chance of its own: how much of it is used up depends on pages, what is done must not. */
static void image(struct world *w, const char *path)
{
	uint64_t seed = disk_random(&w->seed, UINT64_MAX);
	disk_image(path, &seed);
}

static void cut(struct world *w, size_t event)
{
	disk_cut(event);
	take_published(w, event);
	remove_tree(w->image);
	image(w, w->image);
	struct small s = w->small;
	s.path = w->image;
	enum found found = look_in_child(&s);
	/* a first fill that never became current is begun again, as long as nothing was published */
	if (found == FOUND_ABSENT && (w->has_state || was_published(w))) {
		found = FOUND_WRONG;
		snprintf(why, WHY_BYTES, "the state is gone");
	}
	w->counts.cuts++;
	w->counts.right += found == FOUND_RIGHT;
	w->counts.absent += found == FOUND_ABSENT;
	w->counts.unreadable += found == FOUND_UNREADABLE;
	w->counts.wrong += found == FOUND_WRONG;
}

static int by_size(const void *a, const void *b)
{
	size_t x = *(const size_t *)a, y = *(const size_t *)b;
	return (x > y) - (x < y);
}

/* Cuts in one life, in their order; with the last one the next begins. */
static void cut_life(struct world *w, bool *failed)
{
	size_t at[CUTS_OF_A_LIFE];
	for (int i = 0; i < CUTS_OF_A_LIFE; i++)
		at[i] = disk_random(&w->seed, disk_events() + 1);
	/* moments right after something was published, or amid a switch, are worth more */
	for (int i = 0; i < CUTS_OF_A_LIFE / 2; i++) {
		size_t event = w->marks[disk_random(&w->seed, (uint64_t)w->n_marks)].event;
		size_t before = i % 2 ? disk_random(&w->seed, 10) : 0;
		at[i] = event > before ? event - before : 0;
	}
	qsort(at, CUTS_OF_A_LIFE, sizeof(*at), by_size);
	for (int i = 0; i < CUTS_OF_A_LIFE && !*failed; i++) {
		cut(w, at[i]);
		*failed = w->counts.wrong + w->counts.unreadable > 0;
	}
	remove_tree(w->dir);
	image(w, w->dir);
	w->has_state |= was_published(w);
}

static void new_directory(struct world *w)
{
	remove_tree(w->dir);
	assert_int_equal(mkdir(w->dir, 02750), 0);
	bool early = w->small.publishes_early;
	small_init(&w->small, w->dir, disk_random(&w->seed, UINT64_MAX));
	w->small.publishes_early = early;
	w->small.waits = w->small.seed & 1;
	w->has_state = false;
}

/* Until there were `cuts`, or something went wrong. */
static void run(struct world *w, const char *base, uint64_t seed, long cuts)
{
	bool failed = false;
	snprintf(w->dir, sizeof(w->dir), "%s/life", base);
	snprintf(w->image, sizeof(w->image), "%s/image", base);
	w->seed = seed;
	print_message("SEED=%llu\n", (unsigned long long)seed);
	while (w->counts.cuts < cuts && !failed) {
		if (w->counts.lives % LIVES_OF_A_DIRECTORY == 0)
			new_directory(w);
		if (!live(w)) {
			failed = true;
			w->counts.wrong++;
			snprintf(why, WHY_BYTES, "what a cut left is not gone on with: %s",
				 w->small.err);
		} else {
			cut_life(w, &failed);
		}
		disk_forget();
	}
	print_message(
		"%ld cuts in %ld lives (%ld rebuilds, %ld failed syncs): %ld right, %ld without "
		"a first fill, %ld unreadable, %ld wrong\n",
		w->counts.cuts, w->counts.lives, w->counts.rebuilds, w->counts.syncs_failed,
		w->counts.right, w->counts.absent, w->counts.unreadable, w->counts.wrong);
}

static uint64_t number(const char *variable, uint64_t otherwise)
{
	const char *text = getenv(variable);
	return text ? strtoull(text, NULL, 10) : otherwise;
}

static void test_whatever_is_published_survives_a_power_cut(void **state)
{
	static struct world w;
	run(&w, *state, number("SEED", 1), (long)number("CUTS", 300));
	if (w.counts.wrong || w.counts.unreadable)
		fail_msg("%s", why);
	assert_true(w.counts.rebuilds > 0 && w.counts.syncs_failed > 0 && w.counts.absent > 0);
}

/* ---- in particular ---- */

static void batches(struct world *w, int n)
{
	for (int i = 0; i < n; i++)
		assert_int_equal(small_batch(&w->small, 20), 0);
}

static bool all_right(const struct world *w) { return w->counts.right == w->counts.cuts; }

/* At each event from `from` on, `times`, until something is not right. */
static void cut_each(struct world *w, size_t from, int times)
{
	w->has_state = true;
	for (size_t event = from; event <= disk_events(); event++)
		for (int i = 0; i < times && all_right(w); i++)
			cut(w, event);
	disk_forget();
}

/* A sync fails, with what was written before it; then two commits follow.  Each moment of them. */
static void fail_one_sync(struct world *w, int error)
{
	new_directory(w);
	w->small.path = w->dir;
	w->n_marks = 0;
	disk_record(w->dir);
	assert_int_equal(small_start(&w->small), 0);
	batches(w, 3);
	assert_int_equal(publish(w), 0);
	batches(w, 2);
	interpose_arm(&(struct fault){ CALL_SYNC, 1, error, false });
	int rc = small_batch(&w->small, 20);
	assert_true(interpose_hit());
	interpose_disarm();
	if (rc) {
		small_stop(&w->small);
		assert_int_equal(small_start(&w->small), 0);
	}
	size_t from = disk_events();
	batches(w, 1);
	assert_int_equal(publish(w), 0);
	batches(w, 2);
	disk_stop();
	small_stop(&w->small);
	cut_each(w, from, 2);
}

static void test_nothing_is_built_upon_a_sync_that_failed(void **state)
{
	static struct world w;
	snprintf(w.dir, sizeof(w.dir), "%s/life", (char *)*state);
	snprintf(w.image, sizeof(w.image), "%s/image", (char *)*state);
	w.seed = number("SEED", 1);
	for (int i = 0; i < 6 && all_right(&w); i++) /* what is dropped is chance */
		fail_one_sync(&w, i % 2 ? EIO : ENOSPC);
	print_message("%ld cuts after a failed sync, %ld right\n", w.counts.cuts, w.counts.right);
	if (!all_right(&w))
		fail_msg("%s", why);
}

/* The last moments of a generation that takes over; its n-th sync fails (0: none). */
static void switch_once(struct world *w, long n)
{
	new_directory(w);
	w->small.path = w->dir;
	w->n_marks = 0;
	disk_record(w->dir);
	assert_int_equal(small_start(&w->small), 0);
	batches(w, 1);
	assert_int_equal(publish(w), 0);
	interpose_arm(&(struct fault){ CALL_SYNC, n, EIO, false });
	int rc = small_rebuild(&w->small);
	assert_int_equal(interpose_hit(), n > 0);
	interpose_disarm();
	small_stop(&w->small);
	if (rc)
		assert_int_equal(small_start(&w->small), 0);
	disk_stop();
	small_stop(&w->small);
	cut_each(w, disk_events() - 12, 8);
}

static void test_current_names_a_whole_generation_at_every_moment_of_a_switch(void **state)
{
	enum { SYNCS = 5 }; /* its data, its directory, its name, `current`; and before sweeping */
	static struct world w;
	snprintf(w.dir, sizeof(w.dir), "%s/life", (char *)*state);
	snprintf(w.image, sizeof(w.image), "%s/image", (char *)*state);
	w.seed = number("SEED", 1);
	for (long n = 0; n <= SYNCS && all_right(&w); n++)
		switch_once(&w, n);
	print_message("%ld cuts in switches, %ld right\n", w.counts.cuts, w.counts.right);
	if (!all_right(&w))
		fail_msg("%s", why);
}

/* ---- on purpose wrong: the kit sees it ---- */

enum { ENOUGH = 1000 };

static void test_publishing_what_is_not_durable_is_seen(void **state)
{
	static struct world w = { .small.publishes_early = true };
	run(&w, *state, 2, ENOUGH);
	assert_true(w.counts.wrong > 0);
	assert_non_null(strstr(why, "P is ahead of A"));
}

static void test_a_switch_without_its_syncs_is_seen(void **state)
{
	static struct world w;
	disk_neglect(DISK_NEGLECTS_NAMES);
	run(&w, *state, 3, ENOUGH);
	disk_neglect(DISK_NEGLECTS_NOTHING);
	assert_true(w.counts.wrong + w.counts.unreadable > 0);
}

static void test_a_state_that_is_never_synced_is_seen(void **state)
{
	static struct world w;
	disk_neglect(DISK_NEGLECTS_FILES);
	run(&w, *state, 4, ENOUGH);
	disk_neglect(DISK_NEGLECTS_NOTHING);
	assert_true(w.counts.wrong + w.counts.unreadable > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with_dir(test_whatever_is_published_survives_a_power_cut),
		test_with_dir(test_nothing_is_built_upon_a_sync_that_failed),
		test_with_dir(test_current_names_a_whole_generation_at_every_moment_of_a_switch),
		test_with_dir(test_publishing_what_is_not_durable_is_seen),
		test_with_dir(test_a_switch_without_its_syncs_is_seen),
		test_with_dir(test_a_state_that_is_never_synced_is_seen),
	};
	why = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return why == MAP_FAILED ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
