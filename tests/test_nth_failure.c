/*
 * The n-th call of one kind fails, for every n, until a run passes without
 * getting there: once, and from then on always.  Then nobody fails any more, and
 * what is on disk has to be right, and usable.
 *
 * Each run is a process of its own, which may not die, hang, take a whole file for
 * a damaged one, or be at a loss for words.  What it had committed has to be there.
 * SQLite's test suite does this; so does hiredis's.
 *
 * With EXHAUSTIVE=1 every n of everything, as `make torture` wants it; else, where a
 * state is written, a sample of them.
 */
#include "harness.h"
#include "config.h"
#include "envelope.h"
#include "faults/interpose.h"
#include "faults/small.h"
#include "generation.h"
#include "notice.h"
#include "render.h"
#include "shared_state.h"
#include "sort.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { HANGS_AFTER_S = 60, SAMPLE = 4 };

/* ---- what a run tells ---- */

struct report {
	int rc;
	char err[SMALL_ERR]; /* "": the code is all there is to say */
	char wrong[300];     /* "": nothing */
	bool complete;       /* the process came to its end */
	struct small small;
	long runs, hits;
};

static struct report *report;

static void set_up_report(void)
{
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	assert_true(report != MAP_FAILED);
}

__attribute__((format(printf, 1, 2))) static void wrong(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	if (!report->wrong[0])
		vsnprintf(report->wrong, sizeof(report->wrong), fmt, ap);
	va_end(ap);
}

/* ---- directories ---- */

static void copy_file(int from_dir, int to_dir, const char *name)
{
	static char page[4096];
	static const char zeros[sizeof(page)];
	struct stat st;
	int in = openat(from_dir, name, O_RDONLY), out;
	ssize_t n;
	assert_true(in >= 0 && !fstat(in, &st));
	out = openat(to_dir, name, O_WRONLY | O_CREAT | O_TRUNC, st.st_mode & 0777);
	assert_true(out >= 0 && !ftruncate(out, st.st_size));
	for (off_t at = 0; (n = pread(in, page, sizeof(page), at)) > 0; at += n)
		if (memcmp(page, zeros, (size_t)n))
			assert_int_equal(pwrite(out, page, (size_t)n, at), n);
	close(in);
	close(out);
}

static void copy_dir(int from_dir, const char *from, int to_dir, const char *to)
{
	int in = openat(from_dir, from, O_RDONLY | O_DIRECTORY), out;
	char link[64];
	assert_true(in >= 0 && !mkdirat(to_dir, to, 0750));
	assert_true((out = openat(to_dir, to, O_RDONLY | O_DIRECTORY)) >= 0);
	DIR *d = fdopendir(dup(in));
	for (struct dirent *e; (e = readdir(d));) {
		ssize_t n = readlinkat(in, e->d_name, link, sizeof(link) - 1);
		if (e->d_name[0] == '.')
			continue;
		if (n > 0) {
			link[n] = 0;
			assert_int_equal(symlinkat(link, out, e->d_name), 0);
		} else if (e->d_type == DT_DIR) {
			copy_dir(in, e->d_name, out, e->d_name);
		} else {
			copy_file(in, out, e->d_name);
		}
	}
	closedir(d);
	close(in);
	close(out);
}

static void remove_tree(const char *path) { nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }

/* ---- scenarios ---- */

/* What a directory holds before; published positions in *s. */
typedef void prepare_fn(struct small *s);
/* What is done to it; `s` says what it came to. */
typedef int run_fn(struct small *s);

static void prepare_nothing(struct small *s) { assert_int_equal(mkdir(s->path, 0750), 0); }

static void prepare_running(struct small *s)
{
	assert_int_equal(small_start(s), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(small_batch(s, 30), 0);
		if (i < 3)
			assert_int_equal(small_publish(s), 0);
	}
	small_stop(s);
}

/* Pages that a batch took and gave back: the file ends before them unless it is lengthened. */
static void write_and_remove(struct small *s)
{
	static char value[200 << 10];
	struct state_txn *t;
	interpose_arm(&(struct fault){ CALL_RESIZE, .n = 1, .error = EIO, .persists = true });
	assert_int_equal(state_begin(s->st, &t), 0);
	assert_int_equal(state_put(t, "zz", 2, value, sizeof(value)), 0);
	assert_int_equal(state_del(t, "zz", 2), 0);
	assert_int_equal(state_commit(t), 0);
	interpose_disarm();
}

/* Whatever lies behind the last page that was written. */
static void cut_margin(const char *path)
{
	char page[4096];
	int fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	off_t at = lseek(fd, 0, SEEK_END);
	do {
		at -= (off_t)sizeof(page);
		assert_int_equal(pread(fd, page, sizeof(page), at), sizeof(page));
	} while (!page[0] && !memcmp(page, page + 1, sizeof(page) - 1));
	assert_int_equal(ftruncate(fd, at + (off_t)sizeof(page)), 0);
	assert_int_equal(generation_check(fd), -ERANGE);
	close(fd);
}

/* As a crash leaves it: a short file, half a fill, half a switch. */
static void prepare_crashed(struct small *s)
{
	char path[600];
	prepare_running(s);
	assert_int_equal(small_start(s), 0);
	write_and_remove(s);
	small_stop(s);
	int dir = open(s->path, O_RDONLY | O_DIRECTORY);
	assert_true(dir >= 0);
	copy_dir(dir, "gen-1", dir, "gen-77");
	assert_int_equal(symlinkat("gen-77", dir, "current.new"), 0);
	close(dir);
	snprintf(path, sizeof(path), "%s/gen-1/data.mdb", s->path);
	cut_margin(path);
}

static int run_first(struct small *s)
{
	int rc;
	if ((rc = small_start(s)) || (rc = small_batch(s, 30)) || (rc = small_publish(s)))
		return rc;
	return small_batch(s, 20);
}

static int run_write(struct small *s)
{
	int rc;
	if ((rc = small_start(s)) || (rc = small_batch(s, 40)) || (rc = small_publish(s)) ||
	    (rc = small_batch(s, 40)) || (rc = small_batch(s, 5)) || (rc = small_publish(s)))
		return rc;
	return small_batch(s, 10);
}

static int run_rebuild(struct small *s)
{
	int rc;
	if ((rc = small_start(s)) || (rc = small_batch(s, 20)) || (rc = small_rebuild(s)) ||
	    (rc = small_batch(s, 20)))
		return rc;
	return small_publish(s);
}

static int run_refill(struct small *s)
{
	int rc;
	if ((rc = small_start(s)) || (rc = small_batch(s, 20)) || (rc = small_refill(s)) ||
	    (rc = small_batch(s, 20)))
		return rc;
	return small_publish(s);
}

/* What is told is trimmed, what is left is taken over, and found again by a fill. */
static int run_waiting(struct small *s)
{
	int rc;
	if ((rc = small_start(s)) || (rc = small_batch(s, 40)) || (rc = small_publish(s)) ||
	    (rc = small_batch(s, 20)) || (rc = small_rebuild(s)) || (rc = small_batch(s, 20)) ||
	    (rc = small_publish(s)) || (rc = small_refill(s)))
		return rc;
	return small_batch(s, 20);
}

/* ---- the readers' scenario ---- */

static int note(int *first, int rc)
{
	if (rc == -EBADMSG)
		wrong("a reader says that the file is damaged");
	if (rc && rc != -ENOENT && !*first)
		*first = rc;
	return rc;
}

static void read_key(struct sstate *st, struct sstate_snapshot *n, struct small *s, int p, int k,
		     struct sstate_buf *b, int *first)
{
	char key[SMALL_KEY_MAX], value[16384];
	size_t key_len = small_key(key, p, k), len = 0, got;
	struct sstate_record r;
	const char *expected = small_value(s, p, k, s->seen, &len);
	int rc[3] = { note(first, sstate_get(st, key, key_len, b, &r)) };
	if (!rc[0] && (!expected || r.value_len != len || memcmp(r.value, expected, len)))
		wrong("sstate_get() has given other bytes");
	rc[1] = note(first, sstate_get_value(st, key, key_len, value, sizeof(value), &got));
	if (!rc[1] && (!expected || got != len || memcmp(value, expected, len)))
		wrong("sstate_get_value() has given other bytes");
	rc[2] = note(first, sstate_snapshot_get(n, key, key_len, b, &r));
	for (int i = 0; i < 3; i++)
		if (expected && rc[i] == -ENOENT)
			wrong("a key that is there is told to be absent");
}

static int count_scan(struct sstate *st, int *first)
{
	struct sstate_scan *c;
	struct sstate_record r;
	int n = 0, rc = sstate_scan_begin(&c, st, "key-1", 5);
	if (note(first, rc))
		return -1;
	while (!(rc = sstate_scan_next(c, &r)))
		n++;
	sstate_scan_end(c);
	return note(first, rc) == -ENOENT ? n : -1;
}

static int read_all(struct sstate *st, struct small *s)
{
	struct sstate_snapshot *n;
	struct sstate_buf b = { 0 };
	struct sstate_stat stat;
	char token[100];
	int first = 0, keys = 0, rc = sstate_snapshot_begin(&n, st);
	size_t len;
	if (rc)
		return rc;
	for (int k = 0; k < SMALL_KEYS; k++) {
		read_key(st, n, s, 1, k, &b, &first);
		keys += small_value(s, 1, k, s->seen, &len) != NULL;
	}
	sstate_snapshot_end(n);
	int seen = count_scan(st, &first);
	if (seen >= 0 && seen != keys)
		wrong("a scan saw %d keys of %d", seen, keys);
	if (!note(&first, sstate_token(st, token, sizeof(token))))
		note(&first, sstate_wait(st, token, 0));
	note(&first, sstate_stat(st, &stat));
	sstate_buf_free(&b);
	return first;
}

static int run_read(struct small *s)
{
	struct sstate *st;
	int rc = sstate_open(&st, s->path);
	if (rc == -EBADMSG || rc == -ENOENT)
		wrong("sstate_open(): %s", sstate_strerror(rc));
	if (rc)
		return rc;
	rc = read_all(st, s);
	sstate_close(st);
	return rc;
}

/* ---- scenarios without a state ---- */

enum { SORTED_KEYS = 300, SORTED = 1500 };

static int add_all(struct sorter *sort)
{
	static const char value[100];
	int rc = 0;
	for (int i = 0; i < SORTED && !rc; i++) {
		char key[16];
		struct record r = { .offset = i, .value = value, .value_len = sizeof(value) };
		size_t len = (size_t)snprintf(key, sizeof(key), "%04d", i * 7 % SORTED_KEYS);
		rc = sort_add(sort, key, len, &r);
	}
	return rc ? rc : sort_finish(sort);
}

/* The last SORTED_KEYS offsets, one for each key, in the order of keys. */
static int take_all(struct sorter *sort)
{
	struct sorted o;
	struct record r;
	int n = 0, rc;
	while ((rc = sort_next(sort, &o)) == 1) {
		char key[16];
		snprintf(key, sizeof(key), "%04d", n++);
		if (o.skey_len != 4 || memcmp(o.skey, key, 4) ||
		    record_decode(&r, o.rec, o.rec_len, o.skey, o.skey_len) ||
		    r.offset < SORTED - SORTED_KEYS)
			wrong("%s comes out as %.*s", key, (int)o.skey_len, (const char *)o.skey);
	}
	if (!rc && n != SORTED_KEYS)
		wrong("%d keys of %d come out", n, SORTED_KEYS);
	return rc;
}

static int run_sort(struct small *s)
{
	struct sorter *sort;
	int rc = sort_open(&sort, s->path, 16 << 10, MOVED_STOP);
	if (rc)
		return rc;
	if (!(rc = add_all(sort)))
		rc = take_all(sort);
	if (rc)
		snprintf(s->err, sizeof(s->err), "%s", sort_error(sort));
	if (rc && !s->err[0])
		wrong("the sorter fails without a word");
	sort_close(sort);
	return rc;
}

static int run_config(struct small *s)
{
	struct config c;
	char path[300];
	static char variable[] = "SIDENOTE_BATCH_RECORDS=77";
	char *const environment[] = { variable, NULL };
	snprintf(path, sizeof(path), "%s/conf", s->path);
	config_init(&c);
	int rc = config_file(&c, path, s->err, sizeof(s->err));
	if (!rc)
		rc = config_environment(&c, environment, s->err, sizeof(s->err));
	if (!rc)
		rc = config_set(&c, "producer.linger.ms", "3", s->err, sizeof(s->err));
	if (!rc)
		rc = config_check(&c, s->err, sizeof(s->err));
	if (!rc && (strcmp(c.source_topic, "users") || strcmp(c.state_dir, "/var/x") ||
		    c.batch_records != 77))
		wrong("options are not what was set");
	if (rc && !s->err[0])
		wrong("a failed option says nothing");
	config_free(&c);
	return rc;
}

static void prepare_config(struct small *s)
{
	static const char text[] = "name=n\nsource.topic=users\nstate.dir=/var/x\n"
				   "kafka.bootstrap.servers=b:9092\n# a remark\nbatch.records=5\n";
	prepare_nothing(s);
	free(make_file(s->path, "conf", 0600, text, sizeof(text) - 1));
}

static const struct change *a_change(void)
{
	static struct change c = { .partition = 1,
				   .offset = 9,
				   .n = CHANGE_N_LOG,
				   .op = CHANGE_UPDATE,
				   .key = "ke\xffy",
				   .key_len = 4,
				   .has_before = true,
				   .has_after = true };
	static char large[9000];
	memset(large, 'v', sizeof(large));
	c.before = (struct record){ .offset = 3, .value = "{\"a\":1}", .value_len = 7 };
	c.after = (struct record){ .offset = 9, .value = large, .value_len = sizeof(large) };
	return &c;
}

static int tell(enum note_format format, enum note_encoding encoding)
{
	const struct envelope_options o = { .format = format,
					    .encoding = encoding,
					    .name = "n",
					    .cluster = "c",
					    .topic = "t",
					    .version = "v" };
	const struct change *c = a_change();
	struct envelope e;
	struct notice r = { 0 };
	struct note n;
	envelope_init(&e, &o);
	int rc = envelope_make(&e, c, NOTE_LOG, 10, 5, &n);
	if (!rc && !(rc = notice_open(&r, &n)) &&
	    (r.op != 'u' || r.after_len != c->after.value_len || r.before_len != 7 ||
	     memcmp(r.after, c->after.value, r.after_len)))
		wrong("a notification is not read back as it was made");
	if (rc && rc != -ENOMEM)
		wrong("a notification is refused: %d", rc);
	notice_close(&r);
	envelope_free(&e);
	return rc;
}

static int run_notifications(struct small *s)
{
	(void)s;
	static const struct render line = { .time_ms = -1,
					    .op = 'u',
					    .key = "k\xff",
					    .key_len = 2,
					    .before = "{\"a\":1,\"b\":{\"c\":1}}",
					    .before_len = 19,
					    .after = "{\"a\":2,\"b\":{\"c\":2}}",
					    .after_len = 19 };
	int rc = tell(NOTE_DEBEZIUM_JSON, NOTE_JSON), rc2 = tell(NOTE_RAW, NOTE_JSON),
	    rc3 = tell(NOTE_DEBEZIUM_JSON, NOTE_BASE64);
	char *text = render_line(&line);
	/* without memory, objects are shown as other bytes are */
	if (text && !strstr(text, "a: 1 -> 2, b.c: 1 -> 2") &&
	    !(strstr(text, "{\"a\":1") && strstr(text, "{\"a\":2")) &&
	    !strstr(text, "{\"c\":1} -> {\"c\":2}"))
		wrong("a line says: %s", text);
	free(text);
	return rc ? rc : rc2 ? rc2 : rc3 ? rc3 : text ? 0 : -ENOMEM;
}

struct scenario {
	const char *name;
	prepare_fn *prepare;
	run_fn *run;
	bool keeps_state; /* a state is written: look at it afterwards */
	bool began_whole; /* a generation is there from the start, and nothing may say it is not */
	bool waits;       /* superseded pairs are kept */
};

/* ---- what fails ---- */

static const struct kind {
	enum call call;
	int error; /* 0: cut short */
	bool once_only;
	bool odd; /* no local file system does it, and LMDB takes it for damage */
} kinds[] = {
	{ CALL_ALLOCATE, ENOMEM, false, false }, { CALL_OPEN, EMFILE, false, false },
	{ CALL_OPEN, EIO, false, false },        { CALL_READ, EIO, false, false },
	{ CALL_READ, 0, false, true },           { CALL_WRITE, EIO, false, false },
	{ CALL_WRITE, ENOSPC, false, false },    { CALL_WRITE, 0, false, false },
	{ CALL_WRITE, EINTR, true, false }, /* for ever it would be tried for ever, and rightly */
	{ CALL_SYNC, EIO, false, false },        { CALL_SYNC, ENOSPC, false, false },
	{ CALL_RESIZE, ENOSPC, false, false },   { CALL_MAP, ENOMEM, false, false },
	{ CALL_STAT, EIO, false, false },        { CALL_NAME, EIO, false, false },
	{ CALL_NAME, ENOSPC, false, false },     { CALL_LOCK, ENOLCK, false, false },
	{ CALL_START, EAGAIN, false, false },
};
enum { KINDS = sizeof(kinds) / sizeof(*kinds) };

/* ---- one run ---- */

static void limit(void)
{
	struct rlimit cpu = { 20, 20 };
	setrlimit(RLIMIT_CPU, &cpu);
	alarm(HANGS_AFTER_S);
}

/* Run fn(arg) in a child; whether it came to its end. */
static bool in_child(void (*fn)(const void *), const void *arg)
{
	int status = 0;
	report->complete = false;
	fflush(NULL);
	pid_t child = fork();
	assert_true(child >= 0);
	if (!child) {
		limit();
		fn(arg);
		report->complete = true;
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFSIGNALED(status))
		wrong(WTERMSIG(status) == SIGALRM || WTERMSIG(status) == SIGXCPU ? "it hangs"
										 : "signal %d",
		      WTERMSIG(status));
	else if (!report->complete)
		wrong("it ends with status %d", WEXITSTATUS(status));
	return report->complete;
}

struct attempt {
	const struct scenario *s;
	struct fault fault;
};

static void attempt(const void *arg)
{
	const struct attempt *a = arg;
	struct small s = report->small;
	interpose_arm(&a->fault);
	int rc = a->s->run(&s);
	small_stop(&s);
	interpose_disarm();
	report->rc = rc;
	memcpy(report->err, s.err, sizeof(report->err));
	if (s.unreadable && a->s->began_whole)
		wrong("a whole state is taken for an unreadable one: %s", s.complaint);
	report->small = s;
}

/* What a person can use: one line, that says what it was. */
static void check_words(const struct attempt *a)
{
	const char *code = state_strerror(report->rc), *cause = strerror(a->fault.error);
	if (!report->rc)
		return;
	if (!strncmp(code, "Unknown", 7) || !strcmp(code, "Success"))
		wrong("code %d has no name", report->rc);
	if (!report->err[0])
		return;
	if (strchr(report->err, '\n') || strlen(report->err) < 12)
		wrong("'%s' says nothing", report->err);
	if (report->rc == -a->fault.error && !strstr(report->err, cause) &&
	    !(a->fault.error == ENOMEM && strstr(report->err, "out of memory")))
		wrong("'%s' does not say %s", report->err, cause);
}

/* Nobody fails any more: it opens, is right, goes on, and is right again. */
static void look_afterwards(const void *arg)
{
	const struct attempt *a = arg;
	struct small s = report->small;
	char why[200];
	int64_t seen = s.seen;
	s.fills = s.unreadable = 0;
	int rc = small_start(&s);
	if (rc)
		wrong("afterwards: it does not open: %s", s.err);
	else if (s.fills && a->s->began_whole)
		wrong("afterwards: it is filled anew (%s)", s.unreadable ? "unreadable" : "gone");
	else if (!s.fills && s.rows[0].applied < seen)
		wrong("afterwards: A is %lld, committed was %lld", (long long)s.rows[0].applied,
		      (long long)seen);
	else if (small_check(&s, why, sizeof(why)))
		wrong("afterwards: %s", why);
	else if ((rc = small_batch(&s, 20)) || (rc = small_publish(&s)) ||
		 (rc = small_batch(&s, 20)))
		wrong("afterwards: it does not go on: %s %s", state_strerror(rc), s.err);
	else if (small_check(&s, why, sizeof(why)))
		wrong("afterwards, after a batch: %s", why);
	small_stop(&s);
}

static void run_once(const struct attempt *a, const char *base, const struct small *prepared)
{
	char path[300], template[300];
	snprintf(path, sizeof(path), "%s/run", base);
	snprintf(template, sizeof(template), "%s/template", base);
	remove_tree(path);
	copy_dir(AT_FDCWD, template, AT_FDCWD, path);
	memset(report, 0, offsetof(struct report, small));
	report->small = *prepared;
	report->small.path = path;
	report->runs++;
	if (in_child(attempt, a)) {
		check_words(a);
		if (a->s->keeps_state)
			in_child(look_afterwards, a);
	}
	report->hits += interpose_hit();
	if (report->wrong[0])
		fail_msg("%s, %s %ld (%s%s): %s [code %d: %s]", a->s->name,
			 call_name(a->fault.call), a->fault.n,
			 a->fault.error ? strerror(a->fault.error) : "cut short",
			 a->fault.persists ? ", and all later ones" : "", report->wrong, report->rc,
			 report->err[0] ? report->err : state_strerror(report->rc));
}

/* ---- all runs of a scenario ---- */

/* How far to go from n; `calls` there were without a fault. */
static long step(const struct scenario *s, long calls)
{
	return getenv("EXHAUSTIVE") || !s->keeps_state || calls <= SAMPLE ? 1 : calls / SAMPLE;
}

static void fail_each(const struct scenario *s, const struct kind *k, bool persists, long calls,
		      const char *base, const struct small *prepared)
{
	static long turn; /* so that samples of the same calls differ */
	long by = step(s, calls);
	for (long n = 1 + turn++ % by;; n += by) {
		const struct attempt a = { s, { k->call, n, k->error, persists } };
		run_once(&a, base, prepared);
		if (!interpose_hit()) {
			if (report->rc)
				fail_msg("%s fails without a fault: %s", s->name, report->err);
			return;
		}
	}
}

static void fail_all(const struct scenario *s, const char *base)
{
	struct small prepared;
	char template[300];
	long calls[CALLS];
	snprintf(template, sizeof(template), "%s/template", base);
	small_init(&prepared, template, 1);
	prepared.waits = s->waits;
	s->prepare(&prepared);
	report->runs = report->hits = 0;
	run_once(&(struct attempt){ s, { 0 } }, base, &prepared);
	assert_int_equal(report->rc, 0);
	for (int c = 0; c < CALLS; c++)
		calls[c] = interpose_count(c);
	for (const struct kind *k = kinds; k < kinds + KINDS; k++)
		for (int persists = 0; persists < 2 - k->once_only && !(k->odd && s->began_whole);
		     persists++)
			fail_each(s, k, persists, calls[k->call], base, &prepared);
	print_message("%s: %ld runs, %ld with a fault\n", s->name, report->runs, report->hits);
	assert_true(report->hits > 10);
}

#define SCENARIO(title, ...)                                                                       \
	static void title(void **state)                                                            \
	{                                                                                          \
		static const struct scenario s = { __VA_ARGS__ };                                  \
		fail_all(&s, *state);                                                              \
	}

SCENARIO(test_a_first_fill_survives_any_failure, "first", prepare_nothing, run_first, true, false,
	 false)
SCENARIO(test_batches_and_publishing_survive_any_failure, "write", prepare_running, run_write, true,
	 true, false)
SCENARIO(test_recovery_from_a_crash_survives_any_failure, "crashed", prepare_crashed, run_write,
	 true, true, false)
SCENARIO(test_a_new_generation_that_takes_over_survives_any_failure, "rebuild", prepare_running,
	 run_rebuild, true, true, false)
SCENARIO(test_a_refill_survives_any_failure, "refill", prepare_running, run_refill, true, true,
	 false)
SCENARIO(test_what_waits_for_compaction_survives_any_failure, "waiting", prepare_running,
	 run_waiting, true, true, true)
SCENARIO(test_readers_survive_any_failure, "read", prepare_running, run_read, true, true, false)
SCENARIO(test_sorting_survives_any_failure, "sort", prepare_nothing, run_sort, false, false, false)
SCENARIO(test_configuration_survives_any_failure, "config", prepare_config, run_config, false,
	 false, false)
SCENARIO(test_notifications_survive_any_failure, "notifications", prepare_nothing,
	 run_notifications, false, false, false)

static long meta_pages, other_pages;

static void on_wrote(int fd, off_t at, size_t len)
{
	(void)fd, (void)len;
	at < 8192 ? meta_pages++ : other_pages++;
}

static void test_calls_of_the_library_beneath_are_seen(void **state)
{
	static const struct watcher watcher = { .wrote = on_wrote };
	struct small s;
	small_init(&s, *state, 1);
	assert_int_equal(small_start(&s), 0);
	interpose_watch(&watcher);
	interpose_arm(&(struct fault){ 0 });
	struct state_txn *t;
	assert_int_equal(state_begin(s.st, &t), 0);
	assert_int_equal(state_put(t, "k", 1, "v", 1), 0);
	assert_int_equal(state_commit(t), 0);
	interpose_disarm();
	interpose_watch(NULL);
	/* LMDB writes the one in another way than the others */
	assert_int_equal(meta_pages, 1);
	assert_true(other_pages > 0);
	assert_int_equal(interpose_count(CALL_WRITE), meta_pages + other_pages);
	assert_int_equal(interpose_count(CALL_SYNC), 1);
	assert_true(interpose_count(CALL_ALLOCATE) > 2);
	small_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with_dir(test_calls_of_the_library_beneath_are_seen),
		test_with_dir(test_a_first_fill_survives_any_failure),
		test_with_dir(test_batches_and_publishing_survive_any_failure),
		test_with_dir(test_recovery_from_a_crash_survives_any_failure),
		test_with_dir(test_a_new_generation_that_takes_over_survives_any_failure),
		test_with_dir(test_a_refill_survives_any_failure),
		test_with_dir(test_what_waits_for_compaction_survives_any_failure),
		test_with_dir(test_readers_survive_any_failure),
		test_with_dir(test_sorting_survives_any_failure),
		test_with_dir(test_configuration_survives_any_failure),
		test_with_dir(test_notifications_survive_any_failure),
	};
	set_up_report();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
