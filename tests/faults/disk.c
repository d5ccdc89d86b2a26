#include "disk.h"
#include "interpose.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, SECTOR = 512, NAME = 32, OBJECTS_MAX = 4096 };

/* ---- what there is ---- */

struct name {
	char name[NAME];
	int object; /* -1: none */
};

struct names {
	struct name *v;
	size_t n, cap;
};

struct version { /* of a page, whole */
	size_t page;
	uint8_t *bytes;
};

struct object {
	enum { A_FILE, A_DIRECTORY, A_LINK } kind;
	ino_t ino; /* 0: has no name any more, or is a link */
	bool is_data;
	char target[NAME];
	struct names live;
	/* while replaying: */
	struct names durable, renaming; /* ... and what was done to names since the last sync */
	uint8_t *cache, *disk;          /* bytes, as far as `held` */
	size_t held;
	off_t cache_size, disk_size;
	struct version *versions; /* since the last sync */
	off_t *sizes;
	size_t n_versions, cap_versions, n_sizes, cap_sizes;
};

enum event_kind { WROTE, RESIZED, SYNCED, SYNC_FAILED, NAMED };

struct event {
	enum event_kind kind;
	int object;
	off_t at;
	size_t len;
	uint8_t *bytes;
	struct name name; /* NAMED: this one now is that object */
	struct name also; /* and at the same moment */
};

static struct object *objects[OBJECTS_MAX];
static int n_objects;
static struct event *events;
static size_t n_events, cap_events, replayed;
static char root_path[512];
static enum disk_neglect neglect;

uint64_t disk_random(uint64_t *seed, uint64_t n)
{
	uint64_t x = *seed += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return (x ^ x >> 31) % n;
}

static void give_up(const char *what)
{
	fprintf(stderr, "disk: %s: %s\n", what, strerror(errno));
	abort();
}

static void *grow(void *v, size_t n, size_t *cap, size_t size)
{
	if (n < *cap)
		return v;
	*cap = *cap ? *cap * 2 : 16;
	v = realloc(v, *cap * size);
	if (!v)
		give_up("memory");
	return v;
}

/* ---- names ---- */

static struct name *find_name(struct names *l, const char *name)
{
	for (size_t i = 0; i < l->n; i++)
		if (!strcmp(l->v[i].name, name))
			return &l->v[i];
	return NULL;
}

static struct name name_of(const char *name, int object)
{
	struct name n = { .object = object };
	snprintf(n.name, sizeof(n.name), "%.*s", NAME - 1, name);
	return n;
}

static void set_name(struct names *l, const struct name *n)
{
	struct name *there = find_name(l, n->name);
	if (there) {
		there->object = n->object;
		return;
	}
	l->v = grow(l->v, l->n, &l->cap, sizeof(*l->v));
	l->v[l->n++] = *n;
}

static int lookup(int dir, const char *name)
{
	struct name *n = find_name(&objects[dir]->live, name);
	return n ? n->object : -1;
}

static int new_object(int kind, ino_t ino)
{
	if (n_objects == OBJECTS_MAX)
		give_up("too many objects");
	struct object *o = calloc(1, sizeof(*o));
	if (!o)
		give_up("memory");
	o->kind = kind;
	o->ino = ino;
	objects[n_objects] = o;
	return n_objects++;
}

static int by_ino(ino_t ino)
{
	for (int i = n_objects - 1; i >= 0; i--)
		if (objects[i]->ino == ino)
			return i;
	return -1;
}

static int by_fd(int fd)
{
	struct stat st;
	return fstat(fd, &st) ? -1 : by_ino(st.st_ino);
}

/* ---- recording ---- */

static struct event *add_event(enum event_kind kind, int object)
{
	events = grow(events, n_events, &cap_events, sizeof(*events));
	events[n_events] = (struct event){ .kind = kind, .object = object };
	return &events[n_events++];
}

static void add_name(int dir, struct name n, struct name also)
{
	struct event *e = add_event(NAMED, dir);
	e->name = n;
	e->also = also;
	set_name(&objects[dir]->live, &n);
	if (*also.name)
		set_name(&objects[dir]->live, &also);
}

/* The directory that a path is in, and its last part; -1: another one. */
static int place(int dirfd, const char *path, const char **name)
{
	size_t len = strlen(root_path);
	*name = path;
	if (dirfd != AT_FDCWD)
		return by_fd(dirfd);
	if (strncmp(path, root_path, len) || path[len] != '/')
		return -1;
	*name = path + len + 1;
	const char *slash = strchr(*name, '/');
	if (!slash)
		return 0;
	struct name first = { 0 };
	snprintf(first.name, sizeof(first.name), "%.*s", (int)(slash - *name), *name);
	*name = slash + 1;
	return lookup(0, first.name);
}

static void on_opened(const char *path, int dirfd, int fd, int flags)
{
	const char *name;
	int dir = place(dirfd, path, &name);
	struct stat st;
	if (flags & O_DIRECTORY || dir < 0 || lookup(dir, name) >= 0)
		return;
	if (fstat(fd, &st))
		give_up("fstat");
	int o = new_object(A_FILE, st.st_ino);
	objects[o]->is_data = !strcmp(name, "data.mdb");
	add_name(dir, name_of(name, o), (struct name){ 0 });
}

static int data_of(int fd)
{
	int o = by_fd(fd);
	return o >= 0 && objects[o]->is_data ? o : -1;
}

static void on_wrote(int fd, off_t at, size_t len)
{
	int o = data_of(fd);
	if (o < 0)
		return;
	if (fcntl(fd, F_GETFL) & O_DSYNC)
		give_up("a write that syncs itself is not played");
	struct event *e = add_event(WROTE, o);
	e->at = at;
	e->len = len;
	e->bytes = malloc(len);
	if (!e->bytes || pread(fd, e->bytes, len, at) != (ssize_t)len)
		give_up("reading back what was written");
}

static void on_resized(int fd, off_t size)
{
	int o = data_of(fd);
	if (o >= 0)
		add_event(RESIZED, o)->at = size;
}

static void on_synced(int fd, bool ok)
{
	int o = by_fd(fd);
	if (o < 0 || (!objects[o]->is_data && objects[o]->kind != A_DIRECTORY))
		return;
	bool names = objects[o]->kind == A_DIRECTORY;
	if (neglect == (names ? DISK_NEGLECTS_NAMES : DISK_NEGLECTS_FILES))
		return;
	add_event(ok ? SYNCED : SYNC_FAILED, o);
}

static void on_made(int dirfd, const char *path, const char *target)
{
	const char *name;
	int dir = place(dirfd, path, &name);
	struct stat st;
	if (dir < 0)
		return;
	if (fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW))
		give_up("fstatat");
	int o = new_object(target ? A_LINK : A_DIRECTORY, target ? 0 : st.st_ino);
	if (target)
		snprintf(objects[o]->target, NAME, "%s", target);
	add_name(dir, name_of(name, o), (struct name){ 0 });
}

static void on_renamed(int dirfd, const char *from, const char *to)
{
	int dir = by_fd(dirfd);
	if (dir >= 0)
		add_name(dir, name_of(to, lookup(dir, from)), name_of(from, -1));
}

static void on_removed(int dirfd, const char *name)
{
	int dir = by_fd(dirfd), o = dir < 0 ? -1 : lookup(dir, name);
	if (o < 0)
		return;
	objects[o]->ino = 0; /* the number may be another file's soon */
	add_name(dir, name_of(name, -1), (struct name){ 0 });
}

/* ---- a file, replayed ---- */

static void hold(struct object *o, size_t size)
{
	size_t held = (size + PAGE - 1) / PAGE * PAGE;
	if (held <= o->held)
		return;
	held += 64 * PAGE;
	o->cache = realloc(o->cache, held);
	o->disk = realloc(o->disk, held);
	if (!o->cache || !o->disk)
		give_up("memory");
	memset(o->cache + o->held, 0, held - o->held);
	memset(o->disk + o->held, 0, held - o->held);
	o->held = held;
}

static void add_version(struct object *o, size_t page)
{
	o->versions = grow(o->versions, o->n_versions, &o->cap_versions, sizeof(*o->versions));
	struct version *v = &o->versions[o->n_versions++];
	*v = (struct version){ page, malloc(PAGE) };
	if (!v->bytes)
		give_up("memory");
	memcpy(v->bytes, o->cache + page * PAGE, PAGE);
}

static void set_size(struct object *o, off_t size)
{
	hold(o, (size_t)size);
	o->cache_size = size;
	o->sizes = grow(o->sizes, o->n_sizes, &o->cap_sizes, sizeof(*o->sizes));
	o->sizes[o->n_sizes++] = size;
}

static void replay_write(struct object *o, const struct event *e)
{
	size_t end = (size_t)e->at + e->len;
	hold(o, end);
	memcpy(o->cache + e->at, e->bytes, e->len);
	for (size_t page = (size_t)e->at / PAGE; page * PAGE < end; page++)
		add_version(o, page);
	if ((off_t)end > o->cache_size)
		set_size(o, (off_t)end);
}

static void drop_versions(struct object *o)
{
	for (size_t i = 0; i < o->n_versions; i++)
		free(o->versions[i].bytes);
	o->n_versions = o->n_sizes = 0;
}

/* ---- what may be on disk ---- */

enum fate { ALL_LOST, ALL_KEPT, BY_PAGE, BY_SECTOR, FATES };

/* One version of every page, by chance, onto `to`. */
static void choose_pages(const struct object *o, uint8_t *to, enum fate fate, uint64_t *seed)
{
	size_t unit = fate == BY_SECTOR ? SECTOR : PAGE;
	for (size_t i = 0; i < o->n_versions; i++) {
		const struct version *v = &o->versions[i];
		/* in order: a later one that is kept replaces an earlier one */
		for (size_t at = 0; at < PAGE; at += unit)
			if (fate == ALL_KEPT || (fate != ALL_LOST && disk_random(seed, 2)))
				memcpy(to + v->page * PAGE + at, v->bytes + at, unit);
	}
}

static off_t choose_size(const struct object *o, enum fate fate, uint64_t *seed)
{
	if (fate == ALL_KEPT)
		return o->cache_size;
	size_t n = fate == ALL_LOST ? 0 : disk_random(seed, o->n_sizes + 1);
	return n ? o->sizes[n - 1] : o->disk_size;
}

static void replay(const struct event *e, uint64_t *seed)
{
	struct object *o = objects[e->object];
	switch (e->kind) {
	case WROTE:
		replay_write(o, e);
		break;
	case RESIZED:
		set_size(o, e->at);
		break;
	case NAMED:
		o->renaming.v = grow(o->renaming.v, o->renaming.n + 1, &o->renaming.cap,
				     sizeof(*o->renaming.v));
		o->renaming.v[o->renaming.n++] = e->name;
		o->renaming.v[o->renaming.n++] = e->also;
		break;
	case SYNC_FAILED:
		if (o->kind == A_FILE) {
			choose_pages(o, o->disk, BY_PAGE, seed);
			drop_versions(o);
			o->disk_size = o->cache_size;
		}
		break;
	case SYNCED:
		for (size_t i = 0; i < o->renaming.n; i++)
			if (*o->renaming.v[i].name)
				set_name(&o->durable, &o->renaming.v[i]);
		o->renaming.n = 0;
		if (o->kind == A_FILE) {
			choose_pages(o, o->disk, ALL_KEPT, seed);
			drop_versions(o);
			o->disk_size = o->cache_size;
		}
		break;
	}
}

void disk_cut(size_t n)
{
	static uint64_t seed = 1; /* of failed syncs */
	for (; replayed < n && replayed < n_events; replayed++)
		replay(&events[replayed], &seed);
}

/* ---- an image ---- */

static void write_data(int dirfd, const char *name, const struct object *o, uint64_t *seed)
{
	enum fate fate = disk_random(seed, FATES);
	off_t size = choose_size(o, fate, seed);
	size_t whole = ((size_t)size + PAGE - 1) / PAGE * PAGE;
	uint8_t *bytes = calloc(1, o->held > whole ? o->held : whole + PAGE);
	static const uint8_t zeros[PAGE];
	if (!bytes)
		give_up("memory");
	if (o->held)
		memcpy(bytes, o->disk, o->held);
	choose_pages(o, bytes, fate, seed);
	int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_TRUNC, 0640);
	if (fd < 0 || ftruncate(fd, size))
		give_up(name);
	for (off_t at = 0; at < size; at += PAGE) {
		size_t len = size - at < PAGE ? (size_t)(size - at) : PAGE;
		if (memcmp(bytes + at, zeros, len) &&
		    pwrite(fd, bytes + at, len, at) != (ssize_t)len)
			give_up(name);
	}
	close(fd);
	free(bytes);
}

static void write_lock(int dirfd, const char *name, uint64_t *seed)
{
	uint64_t nonsense[1024];
	int fd = openat(dirfd, name, O_RDWR | O_CREAT, 0600);
	for (size_t i = 0; i < sizeof(nonsense) / sizeof(*nonsense); i++)
		nonsense[i] = disk_random(seed, UINT64_MAX);
	if (fd < 0 || (disk_random(seed, 2) &&
		       write(fd, nonsense, sizeof(nonsense)) != (ssize_t)sizeof(nonsense)))
		give_up(name);
	close(fd);
}

/* The names of a directory: those that were synced, and of the others what chance says. */
static struct names choose_names(const struct object *o, uint64_t *seed)
{
	struct names l = { 0 };
	bool ordered = disk_random(seed, 2);
	size_t kept = disk_random(seed, o->renaming.n / 2 + 1);
	for (size_t i = 0; i < o->durable.n; i++)
		set_name(&l, &o->durable.v[i]);
	for (size_t i = 0; i < o->renaming.n; i += 2) {
		const struct name *n = &o->renaming.v[i];
		if (ordered ? i / 2 >= kept : disk_random(seed, 2))
			continue;
		set_name(&l, n);
		if (*n[1].name)
			set_name(&l, &n[1]);
	}
	return l;
}

static void write_dir(int dirfd, int dir, uint64_t *seed)
{
	struct names l = choose_names(objects[dir], seed);
	for (size_t i = 0; i < l.n; i++) {
		const char *name = l.v[i].name;
		if (l.v[i].object < 0)
			continue;
		const struct object *o = objects[l.v[i].object];
		if (o->kind == A_LINK) {
			if (symlinkat(o->target, dirfd, name))
				give_up(name);
		} else if (o->kind == A_DIRECTORY) {
			int fd = -1;
			if (mkdirat(dirfd, name, 02750) ||
			    (fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY)) < 0)
				give_up(name);
			write_dir(fd, l.v[i].object, seed);
			close(fd);
		} else if (o->is_data) {
			write_data(dirfd, name, o, seed);
		} else {
			write_lock(dirfd, name, seed);
		}
	}
	free(l.v);
}

void disk_image(const char *path, uint64_t *seed)
{
	int fd = -1;
	if (mkdir(path, 02750) || (fd = open(path, O_RDONLY | O_DIRECTORY)) < 0)
		give_up(path);
	write_dir(fd, 0, seed);
	close(fd);
}

/* ---- beginning and end ---- */

static void load_data(int dirfd, const char *name, struct object *o)
{
	int fd = openat(dirfd, name, O_RDONLY);
	struct stat st;
	if (fd < 0 || fstat(fd, &st))
		give_up(name);
	hold(o, (size_t)st.st_size);
	if (pread(fd, o->cache, (size_t)st.st_size, 0) != st.st_size)
		give_up(name);
	memcpy(o->disk, o->cache, o->held);
	o->cache_size = o->disk_size = st.st_size;
	close(fd);
}

static void load_dir(int fd, int dir);

static int load_entry(int dirfd, const char *name)
{
	struct stat st;
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW))
		give_up(name);
	int o = new_object(S_ISLNK(st.st_mode)   ? A_LINK
			   : S_ISDIR(st.st_mode) ? A_DIRECTORY
						 : A_FILE,
			   S_ISLNK(st.st_mode) ? 0 : st.st_ino);
	if (S_ISLNK(st.st_mode) && readlinkat(dirfd, name, objects[o]->target, NAME - 1) < 0)
		give_up(name);
	if (S_ISDIR(st.st_mode))
		load_dir(openat(dirfd, name, O_RDONLY | O_DIRECTORY), o);
	if (S_ISREG(st.st_mode) && !strcmp(name, "data.mdb")) {
		objects[o]->is_data = true;
		load_data(dirfd, name, objects[o]);
	}
	return o;
}

static void load_dir(int fd, int dir)
{
	DIR *d = fdopendir(fd);
	if (!d)
		give_up("fdopendir");
	for (struct dirent *e; (e = readdir(d));) {
		if (e->d_name[0] == '.')
			continue;
		struct name n = name_of(e->d_name, load_entry(fd, e->d_name));
		set_name(&objects[dir]->live, &n);
		set_name(&objects[dir]->durable, &n);
	}
	closedir(d);
}

void disk_record(const char *dir)
{
	static const struct watcher watcher = { on_opened, on_wrote,   on_resized, on_synced,
						on_made,   on_renamed, on_removed };
	struct stat st;
	int fd = open(dir, O_RDONLY | O_DIRECTORY);
	snprintf(root_path, sizeof(root_path), "%s", dir);
	if (fd < 0 || fstat(fd, &st))
		give_up(dir);
	load_dir(fd, new_object(A_DIRECTORY, st.st_ino));
	interpose_watch(&watcher);
}

void disk_stop(void) { interpose_watch(NULL); }
size_t disk_events(void) { return n_events; }
void disk_neglect(enum disk_neglect n) { neglect = n; }

void disk_forget(void)
{
	for (int i = 0; i < n_objects; i++) {
		struct object *o = objects[i];
		drop_versions(o);
		free(o->live.v);
		free(o->durable.v);
		free(o->renaming.v);
		free(o->cache);
		free(o->disk);
		free(o->versions);
		free(o->sizes);
		free(o);
	}
	for (size_t i = 0; i < n_events; i++)
		free(events[i].bytes);
	free(events);
	events = NULL;
	n_objects = 0;
	n_events = cap_events = replayed = 0;
}
