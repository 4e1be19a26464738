/* SPDX-License-Identifier: MIT */
/* wcxfs, the daemon: mounts a store of packed files, shown as the originals. */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <mntent.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "fs/base/version.h"
#include "fs/mount/connection.h"
#include "fs/mount/fuse_ops.h"
#include "fs/mount/guard.h"
#include "fs/mount/store.h"
#include "fs/mount/warm_child.h"
#include "fs/read/decoder.h"
#include "fs/read/tile_cache.h"

enum {
	EXIT_OK = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	THREADS_PER_CPU = 2, /* while one waits for the disk or the GPU, another copies */
	THREADS_MIN = 16,    /* what a loader on a small machine uses at once */
	THREADS_MAX = 128,
	PREFETCH_THREADS_MIN = 2,
	PREFETCH_THREADS_MAX = 16,
	BATCHES_MAX = 16, /* as many threads as read and decode at a time: on few cores most of them wait for the disk */
	STOP_MS = 10,
	STOP_TRIES = 200,
	READY_FD = 3,
	HEAPS = 2,
};

/* The most that is worked ahead of a reader: at 6 GB/s, 10 ms.  Not more than a sixteenth of the RAM. */
static const uint64_t prefetch_bytes_default = UINT64_C(64) << 20;
static const uint64_t cache_min_bytes = UINT64_C(64) << 20;
static const uint64_t cache_max_bytes = UINT64_C(8) << 30;

struct options {
	char *store, *mountpoint; /* as given; absolute once checked */
	char *cache_text, *decoder_text, *prefetch_text, *readahead_text;
	char *warm; /* a path in the store */
	int foreground, help, version, drop_packed;
	uint64_t cache_bytes, prefetch_bytes, readahead_bytes;
	enum wcx_decoder_kind decoder;
};

/* What a mounted store consists of, in the order of creation. */
struct mount {
	struct wcx_tile_cache *cache;
	struct wcx_decoder *decoder;
	struct wcx_store *store;
	struct wcx_fuse *fuse;
	struct fuse_session *session;
	int has_handlers, is_mounted;
	struct wcx_connection connection; /* whatever lies at the path by now */
	const char *mountpoint;
	struct wcx_child guard;
	struct wcx_child warming; /* once there are threads, the signal thread's */
	const char *warm;
};

/* A thread that answers SIGUSR1 with the counters of cache and prefetching, and SIGCHLD with what has become of warming. */
struct signal_thread {
	pthread_t thread;
	struct mount *mount;
	atomic_int stop;
	int is_running;
};

static const char help_text[] =
	"Usage: wcxfs STORE MOUNTPOINT [-o OPTION[,OPTION...]] [-f] [-d]\n"
	"\n"
	"Mounts the directory STORE, read-only, at the directory MOUNTPOINT.  A packed file NAME.wcx is shown as NAME,\n"
	"with the original's size and bytes; everything else is shown as it is.\n"
	"\n"
	"Options:\n"
	"  -o cache_size=BYTES  memory for decoded tiles, with K, M, G or T for powers of 1024\n"
	"                       (default: an eighth of the RAM, but at least 64M and at most 8G)\n"
	"  -o decoder=KIND      auto: the GPU if there is one, else the CPU (default); cpu; cuda: fail without a GPU\n"
	"  -o prefetch=BYTES    decode so much ahead of whoever reads a file in order (default: 64M, but at most a\n"
	"                       sixteenth of the RAM); 0: nothing\n"
	"  -o readahead=BYTES   what the kernel asks for ahead of a reader (default: what it has, 128K as a rule); to\n"
	"                       raise it takes privileges\n"
	"  -o drop_packed       have the kernel forget the packed bytes of what was decoded ahead, so that a model does\n"
	"                       not take memory twice\n"
	"  -o warm=PATH         once it is mounted, read a file or a directory of the store into the page cache; . is all\n"
	"  -o allow_other       let other users in; everyone but root needs user_allow_other in /etc/fuse.conf for that\n"
	"  -o ...               any other option of libfuse, see mount.fuse3(8)\n"
	"  -f                   stay in the foreground, messages on stderr (else: syslog)\n"
	"  -d                   the same, with every request\n"
	"  -h, --help           print this help\n"
	"  -V, --version        print versions\n"
	"\n"
	"wcxfs returns when the files can be used.  `fusermount3 -u MOUNTPOINT' unmounts, and so do SIGTERM, SIGINT and\n"
	"SIGHUP, which a mount that is being warmed needs; SIGUSR1 logs how the cache and prefetching are doing.\n"
	"\n"
	"Exit status: 0 mounted (with -f: unmounted again), 1 it failed, 2 wrong usage.\n"
	"\n"
	"Examples:\n"
	"  wcxfs /data/models /mnt/models\n"
	"  wcxfs /data/models /data/models -o allow_other,cache_size=16G    over the store itself\n"
	"  wcxfs ~/.cache/huggingface/hub ~/hub -o decoder=cpu -f           with links between packed files\n"
	"  wcxfs /data/models /mnt/models -o warm=llama                     decode a model before it is asked for\n"
	"  fusermount3 -u /mnt/models\n";

static void log_to_stderr(enum fuse_log_level level, const char *format, va_list args)
{
	flockfile(stderr);
	if (level < FUSE_LOG_DEBUG) /* the trace of requests comes in fragments of lines */
		fputs("wcxfs: ", stderr);
	vfprintf(stderr, format, args);
	funlockfile(stderr);
}

static void log_to_syslog(enum fuse_log_level level, const char *format, va_list args)
{
	vsyslog((int)level, format, args); /* libfuse numbers its levels as syslog does */
}

static void log_notice(void *user, const char *text)
{
	(void)user;
	fuse_log(FUSE_LOG_NOTICE, "%s\n", text);
}

static int parse_bytes(const char *text, uint64_t *ret)
{
	static const char units[] = "KMGT";
	unsigned shift = 0;
	uint64_t value;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno)
		return -errno;
	if (*end) {
		const char *unit = strchr(units, *end >= 'a' ? *end - 'a' + 'A' : *end);

		if (!unit || end[1])
			return -EINVAL;
		shift = 10 * (unsigned)(unit - units + 1);
	}
	if (value > UINT64_MAX >> shift)
		return -ERANGE;
	*ret = value << shift;
	return 0;
}

static uint64_t ram_bytes(void)
{
	return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t default_cache_bytes(void)
{
	uint64_t bytes = ram_bytes() / 8;

	if (bytes < cache_min_bytes)
		return cache_min_bytes;
	return bytes < cache_max_bytes ? bytes : cache_max_bytes;
}

static int parse_argument(void *data, const char *arg, int key, struct fuse_args *args)
{
	struct options *opts = data;
	char **place;

	(void)args;
	if (key == FUSE_OPT_KEY_OPT && arg[0] == '-') {
		fprintf(stderr, "wcxfs: unknown option %s\n", arg);
		return -1;
	}
	if (key != FUSE_OPT_KEY_NONOPT)
		return 1;
	place = !opts->store ? &opts->store : &opts->mountpoint;
	if (*place) {
		fprintf(stderr, "wcxfs: %s is one argument too many\n", arg);
		return -1;
	}
	*place = strdup(arg);
	return *place ? 0 : -1;
}

static uint64_t default_prefetch_bytes(void)
{
	return ram_bytes() / 16 < prefetch_bytes_default ? ram_bytes() / 16 : prefetch_bytes_default;
}

/* The value of an option, or what it is without. */
static int parse_size(const char *name, const char *text, uint64_t *bytes)
{
	if (!text || !parse_bytes(text, bytes))
		return 0;
	fprintf(stderr, "wcxfs: %s=%s: not a number of bytes, such as 512M or 4G\n", name, text);
	return -EINVAL;
}

static int parse_command_line(struct fuse_args *args, struct options *opts)
{
	static const struct fuse_opt specs[] = {
		{ "cache_size=%s", offsetof(struct options, cache_text), 0 },
		{ "decoder=%s", offsetof(struct options, decoder_text), 0 },
		{ "prefetch=%s", offsetof(struct options, prefetch_text), 0 },
		{ "readahead=%s", offsetof(struct options, readahead_text), 0 },
		{ "warm=%s", offsetof(struct options, warm), 0 },
		{ "drop_packed", offsetof(struct options, drop_packed), 1 },
		{ "-f", offsetof(struct options, foreground), 1 },
		{ "-d", offsetof(struct options, foreground), 1 },
		{ "debug", offsetof(struct options, foreground), 1 },
		FUSE_OPT_KEY("-d", FUSE_OPT_KEY_KEEP),
		FUSE_OPT_KEY("debug", FUSE_OPT_KEY_KEEP),
		{ "-h", offsetof(struct options, help), 1 },
		{ "--help", offsetof(struct options, help), 1 },
		{ "-V", offsetof(struct options, version), 1 },
		{ "--version", offsetof(struct options, version), 1 },
		FUSE_OPT_END,
	};

	if (fuse_opt_parse(args, opts, specs, parse_argument))
		return -EINVAL;
	if (opts->help || opts->version)
		return 0;
	if (!opts->mountpoint) {
		fprintf(stderr, "wcxfs: a store and a mount point are needed; `wcxfs --help' tells more\n");
		return -EINVAL;
	}
	opts->cache_bytes = default_cache_bytes();
	opts->prefetch_bytes = default_prefetch_bytes();
	if (parse_size("cache_size", opts->cache_text, &opts->cache_bytes) ||
	    parse_size("prefetch", opts->prefetch_text, &opts->prefetch_bytes) ||
	    parse_size("readahead", opts->readahead_text, &opts->readahead_bytes))
		return -EINVAL;
	if (opts->decoder_text && wcx_decoder_kind_parse(opts->decoder_text, &opts->decoder)) {
		fprintf(stderr, "wcxfs: decoder=%s: unknown; it is auto, cpu or cuda\n", opts->decoder_text);
		return -EINVAL;
	}
	return 0;
}

/* Replaces *path by its absolute form, for the daemon leaves the directory it was started in. */
static int resolve_directory(const char *what, char **path)
{
	struct stat st;
	char *absolute = realpath(*path, NULL);
	int error = absolute ? 0 : errno;

	if (!error && stat(absolute, &st))
		error = errno;
	if (!error && !S_ISDIR(st.st_mode))
		error = ENOTDIR;
	if (error) {
		fprintf(stderr, "wcxfs: %s %s: %s%s\n", what, *path, strerror(error),
			error == ENOTCONN ? " (left by a dead mount: `fusermount3 -u' removes it)" : "");
		free(absolute);
		return -error;
	}
	free(*path);
	*path = absolute;
	return 0;
}

static int is_mounted_already(const char *mountpoint)
{
	FILE *mounts = setmntent("/proc/self/mounts", "r");
	const struct mntent *entry;
	int found = 0;

	if (!mounts)
		return 0;
	while (!found && (entry = getmntent(mounts)))
		found = !strcmp(entry->mnt_type, "fuse.wcxfs") && !strcmp(entry->mnt_dir, mountpoint);
	endmntent(mounts);
	return found;
}

static int is_inside(const char *dir, const char *path)
{
	size_t bytes = strlen(dir);

	if (bytes == 1) /* the root ends in a slash of its own */
		return path[1] != '\0';
	return !strncmp(dir, path, bytes) && path[bytes] == '/';
}

/* Whether a path names something in the store, packed or not, and nothing elsewhere. */
static int is_in_store(const char *store, const char *path)
{
	char full[PATH_MAX];
	struct stat st;

	for (const char *name = path; *name; name += strcspn(name, "/"), name += strspn(name, "/"))
		if (strcspn(name, "/") == 2 && name[0] == '.' && name[1] == '.')
			return 0;
	if (!*path || *path == '/' || snprintf(full, sizeof full, "%s/%s.wcx", store, path) >= (int)sizeof full)
		return 0;
	if (!stat(full, &st))
		return 1;
	full[strlen(full) - strlen(".wcx")] = '\0';
	if (stat(full, &st))
		return 0;
	return !S_ISREG(st.st_mode) || strcmp(full + strlen(full) - strlen(".wcx"), ".wcx");
}

/* The path becomes one in the mount. */
static int check_warm(struct options *opts)
{
	char *path;

	if (!opts->warm)
		return 0;
	if (!is_in_store(opts->store, opts->warm)) {
		fprintf(stderr, "wcxfs: warm=%s: not in the store %s\n", opts->warm, opts->store);
		return -ENOENT;
	}
	if (asprintf(&path, "%s/%s", opts->mountpoint, opts->warm) < 0)
		return -ENOMEM;
	free(opts->warm);
	opts->warm = path;
	return 0;
}

static int check_directories(struct options *opts)
{
	if (resolve_directory("store", &opts->store) || resolve_directory("mount point", &opts->mountpoint))
		return -EINVAL;
	if (is_mounted_already(opts->mountpoint)) {
		fprintf(stderr, "wcxfs: mount point %s: a store is mounted there already\n", opts->mountpoint);
		return -EBUSY;
	}
	if (is_inside(opts->store, opts->mountpoint)) {
		fprintf(stderr, "wcxfs: mount point %s: inside the store; the store would show itself without end\n",
			opts->mountpoint);
		return -EINVAL;
	}
	return 0;
}

/* Ours after the user's where theirs would break something, before them where they may have reasons. */
static int complete_arguments(struct fuse_args *args, const struct options *opts)
{
	char number[64];
	char *names = NULL;
	int failed;

	snprintf(number, sizeof number, "-omax_read=%d", WCX_FUSE_READ_BYTES);
	failed = fuse_opt_add_opt(&names, "subtype=wcxfs");
	if (!failed) {
		char *fsname = NULL;

		failed = asprintf(&fsname, "fsname=%s", opts->store) < 0 || fuse_opt_add_opt_escaped(&names, fsname);
		free(fsname);
	}
	failed = failed || fuse_opt_insert_arg(args, 1, names) || fuse_opt_insert_arg(args, 1, "-o") ||
		 fuse_opt_add_arg(args, "-oro,default_permissions") || fuse_opt_add_arg(args, number);
	free(names);
	return failed ? -ENOMEM : 0;
}

static void log_stats(const struct mount *mount)
{
	struct wcx_prefetch_stats ahead;
	struct wcx_tile_cache_stats tiles;

	wcx_tile_cache_get_stats(mount->cache, &tiles);
	fuse_log(FUSE_LOG_INFO,
		 "tiles: %" PRIu64 " hits, %" PRIu64 " misses, %" PRIu64 " waits, %" PRIu64 " evictions; %" PRIu64
		 " bytes cached, at most %" PRIu64 "\n",
		 tiles.hits, tiles.misses, tiles.waits, tiles.evictions, tiles.bytes, tiles.peak_bytes);
	wcx_fuse_get_stats(mount->fuse, &ahead);
	fuse_log(FUSE_LOG_INFO,
		 "requests: %" PRIu64 " for %" PRIu64 " bytes; ahead of them %" PRIu64 " bytes pushed, %" PRIu64
		 " decoded; %" PRIu64 " readers followed, %" PRIu64 " of them given up\n",
		 ahead.requests, ahead.requested_bytes, ahead.pushed_bytes, ahead.decoded_bytes, ahead.windows,
		 ahead.given_up);
}

/* Another child may have ended, of libfuse's: that is nothing to us. */
static void log_warming(struct mount *mount)
{
	int status;

	if (!wcx_warm_child_reap(&mount->warming, &status))
		return;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		fuse_log(FUSE_LOG_INFO, "%s: in the page cache\n", mount->warm);
	else
		fuse_log(FUSE_LOG_ERR, "%s: not warmed: `wcx warm' ended with %s %d\n", mount->warm,
			 WIFEXITED(status) ? "status" : "signal",
			 WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

static void *signal_loop(void *arg)
{
	struct signal_thread *thread = arg;
	sigset_t signals;
	int number;

	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGCHLD);
	while (!sigwait(&signals, &number) && !thread->stop) {
		if (number == SIGUSR1)
			log_stats(thread->mount);
		else
			log_warming(thread->mount);
	}
	return NULL;
}

static int signal_start(struct signal_thread *thread, struct mount *mount)
{
	int ret;

	thread->mount = mount;
	ret = -pthread_create(&thread->thread, NULL, signal_loop, thread);
	thread->is_running = !ret;
	return ret;
}

static void signal_stop(struct signal_thread *thread)
{
	if (!thread->is_running)
		return;
	thread->stop = 1;
	pthread_kill(thread->thread, SIGUSR1);
	pthread_join(thread->thread, NULL);
}

/* Writes a number to a file of the kernel's; returns 0 or -errno. */
static int write_number(const char *path, uint64_t number)
{
	char text[32];
	int bytes = snprintf(text, sizeof text, "%" PRIu64, number), fd = open(path, O_WRONLY | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	ret = write(fd, text, (size_t)bytes) == bytes ? 0 : -errno;
	close(fd);
	return ret;
}

/* Waits for a request and answers it; returns what the session read, 0 or less where there is no more. */
static int answer_one(struct fuse_session *session)
{
	struct fuse_buf buffer = { 0 };
	int bytes;

	do
		bytes = fuse_session_receive_buf(session, &buffer);
	while (bytes == -EINTR);
	if (bytes > 0)
		fuse_session_process_buf(session, &buffer);
	free(buffer.mem);
	return bytes;
}

/* A server can only lower the kernel's readahead when it is mounted; to raise it takes privileges. */
static int set_readahead(const struct mount *mount, uint64_t bytes)
{
	char path[64];
	/* The first request, which mounting has queued: what its answer says of readahead would undo ours. */
	int ret = answer_one(mount->session);

	if (ret <= 0) {
		ret = ret ? ret : -EIO;
		fuse_log(FUSE_LOG_ERR, "%s: %s\n", mount->mountpoint, strerror(-ret));
		return ret;
	}
	snprintf(path, sizeof path, "/sys/class/bdi/0:%d/read_ahead_kb", mount->connection.number);
	ret = write_number(path, bytes >> 10);
	if (ret)
		fuse_log(FUSE_LOG_NOTICE, "the kernel's readahead stays as it is: %s\n", strerror(-ret));
	return 0;
}

static int start_prefetching(struct mount *mount, const struct options *opts)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned threads = cores < PREFETCH_THREADS_MIN   ? PREFETCH_THREADS_MIN
			   : cores > PREFETCH_THREADS_MAX ? PREFETCH_THREADS_MAX
							  : (unsigned)cores;
	/* What is decoded for readers past the page cache has to stay in the cache until they come. */
	uint64_t window = opts->prefetch_bytes < opts->cache_bytes / 4 ? opts->prefetch_bytes : opts->cache_bytes / 4;
	int ret = wcx_fuse_start(mount->fuse, fuse_session_fd(mount->session), window ? threads : 0, window,
				 opts->drop_packed);

	if (ret)
		fuse_log(FUSE_LOG_ERR, "no memory to prefetch\n");
	return ret;
}

static int mount_create(struct mount *mount, struct fuse_args *args, const struct options *opts)
{
	struct wcx_error err;
	int ret;

	mount->cache = wcx_tile_cache_create(opts->cache_bytes);
	if (!mount->cache) {
		fuse_log(FUSE_LOG_ERR, "no memory for the cache\n");
		return -ENOMEM;
	}
	ret = wcx_decoder_create(opts->decoder, log_notice, NULL, &mount->decoder, &err);
	if (!ret)
		ret = wcx_store_create(opts->store, mount->cache, mount->decoder, &mount->store, &err);
	if (ret) {
		fuse_log(FUSE_LOG_ERR, "%s\n", err.text);
		return ret;
	}
	wcx_decoder_limit(mount->decoder, BATCHES_MAX);
	ret = wcx_fuse_create(mount->store, &mount->fuse);
	if (ret) {
		fuse_log(FUSE_LOG_ERR, "%s: %s\n", opts->store, strerror(-ret));
		return ret;
	}
	mount->session = fuse_session_new(args, &wcx_fuse_ops, sizeof wcx_fuse_ops, mount->fuse);
	if (!mount->session)
		return -EINVAL; /* libfuse has said why */
	if (fuse_session_mount(mount->session, opts->mountpoint)) {
		fuse_log(FUSE_LOG_ERR, "cannot mount at %s\n", opts->mountpoint);
		return -EIO;
	}
	mount->is_mounted = 1;
	mount->mountpoint = opts->mountpoint;
	wcx_connection_find(opts->mountpoint, &mount->connection);
	wcx_guard_watch(&mount->guard, opts->mountpoint);
	ret = start_prefetching(mount, opts);
	if (!ret && opts->readahead_text)
		ret = set_readahead(mount, opts->readahead_bytes);
	return ret;
}

/* Whether a session's connection has not ended yet. */
static int is_connected(struct fuse_session *session)
{
	struct pollfd pollfd = { .fd = fuse_session_fd(session), .events = POLLIN };

	return poll(&pollfd, 1, 0) >= 0 && !(pollfd.revents & (POLLERR | POLLHUP | POLLNVAL));
}

/* Answers requests until there are none, or the connection has ended. */
static void answer_queued(struct fuse_session *session)
{
	struct pollfd pollfd = { .fd = fuse_session_fd(session), .events = POLLIN };

	while (poll(&pollfd, 1, 0) == 1 && !(pollfd.revents & (POLLERR | POLLHUP | POLLNVAL)) && answer_one(session) > 0)
		;
}

/*
 * Ends prefetching.  A thread may wait for a page that a reader has asked for: so requests go on being answered until all
 * threads have ended.  Where that does not help, the connection is ended: ours, as it was numbered when it was made, and
 * through the path only if what lies there is ours.  Returns 0, or -ETIMEDOUT when threads are left that use what the mount
 * consists of.
 */
static int stop_prefetching(struct mount *mount)
{
	int ret = -ETIMEDOUT;

	if (!mount->is_mounted)
		return 0;
	fuse_session_reset(mount->session);
	for (int i = 0; i < STOP_TRIES && ret; i++) {
		ret = wcx_fuse_stop(mount->fuse, STOP_MS);
		if (ret)
			answer_queued(mount->session);
	}
	if (!ret)
		return 0;
	if (is_connected(mount->session))
		wcx_connection_abort(&mount->connection, mount->mountpoint);
	return wcx_fuse_stop(mount->fuse, STOP_TRIES * STOP_MS);
}

static void mount_free(struct mount *mount)
{
	if (stop_prefetching(mount)) {
		fuse_log(FUSE_LOG_ERR, "%s: a thread does not end\n", mount->mountpoint);
		_exit(EXIT_FAILED); /* what it uses must not be freed */
	}
	wcx_guard_end(&mount->guard);
	if (mount->is_mounted)
		fuse_session_unmount(mount->session);
	if (mount->has_handlers)
		fuse_remove_signal_handlers(mount->session);
	if (mount->session)
		fuse_session_destroy(mount->session);
	if (mount->connection.abort_fd >= 0)
		close(mount->connection.abort_fd);
	wcx_fuse_free(mount->fuse);
	wcx_store_free(mount->store);
	wcx_decoder_free(mount->decoder);
	wcx_tile_cache_free(mount->cache);
}

/* Threads stay once they are there, up to the maximum: libfuse advises against ending idle ones. */
static int run_loop(struct fuse_session *session)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	long threads = THREADS_PER_CPU * sysconf(_SC_NPROCESSORS_ONLN);
	int ret;

	if (!config)
		return -ENOMEM;
	threads = threads < THREADS_MIN ? THREADS_MIN : threads > THREADS_MAX ? THREADS_MAX : threads;
	fuse_loop_cfg_set_clone_fd(config, 1);
	fuse_loop_cfg_set_max_threads(config, (unsigned)threads);
	ret = fuse_session_loop_mt(session, config);
	fuse_loop_cfg_destroy(config);
	return ret > 0 ? 0 : ret; /* above 0: the signal that ended it */
}

/* The mount stands: let go of the terminal, and of the command that waits for this byte. */
static int detach(void)
{
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null_fd < 0)
		return -errno;
	if (setsid() < 0 || chdir("/") || dup2(null_fd, 0) < 0 || dup2(null_fd, 1) < 0 || dup2(null_fd, 2) < 0)
		return -errno;
	close(null_fd);
	openlog("wcxfs", LOG_PID, LOG_DAEMON);
	fuse_set_log_func(log_to_syslog);
	if (write(READY_FD, "", 1) != 1)
		return -errno;
	close(READY_FD);
	return 0;
}

/* Every open file takes a descriptor, so we allow ourselves as many as we may have. */
static void raise_fd_limit(void)
{
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit)) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* Tiles come and go in many threads: with a heap for each, what lies free in them is half of what is not tiles. */
static void keep_heaps_few(void)
{
#ifdef M_ARENA_MAX
	mallopt(M_ARENA_MAX, HEAPS);
#endif
}

/*
 * The signals that end us have to reach the main thread, whose wait they interrupt, and SIGUSR1 and SIGCHLD the thread that
 * waits for them.  So all are blocked while threads are made, CUDA's too, and in the loop the main thread lets in those that
 * end us.
 */
static void block_signals(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGCHLD);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

static void unblock_ending_signals(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
}

static int serve(struct fuse_args *args, const struct options *opts)
{
	struct signal_thread signals = { 0 };
	struct mount mount = { .connection = { -1, -1 }, .warm = opts->warm };
	int ret;

	keep_heaps_few();
	raise_fd_limit();
	ret = wcx_guard_fork(&mount.guard);
	if (!ret && opts->warm)
		ret = wcx_warm_child_fork(opts->warm, opts->foreground, &mount.warming);
	if (ret) {
		fuse_log(FUSE_LOG_ERR, "cannot fork: %s\n", strerror(-ret));
		wcx_guard_end(&mount.guard);
		return EXIT_FAILED;
	}
	signal(SIGPIPE, SIG_IGN); /* a child may be gone when we tell it something */
	block_signals();
	ret = mount_create(&mount, args, opts);
	if (ret)
		goto out;
	wcx_warm_child_start(&mount.warming); /* its first request waits for the loop */
	ret = signal_start(&signals, &mount);
	if (ret)
		goto out;
	ret = fuse_set_signal_handlers(mount.session);
	if (ret)
		goto out;
	mount.has_handlers = 1;
	if (!opts->foreground)
		ret = detach();
	if (!ret) {
		fuse_log(FUSE_LOG_INFO, "%s mounted at %s, decoding with %s\n", opts->store, opts->mountpoint,
			 wcx_decoder_name(mount.decoder));
		unblock_ending_signals();
		ret = run_loop(mount.session);
	}
	if (ret)
		fuse_log(FUSE_LOG_ERR, "%s: %s\n", opts->mountpoint, strerror(-ret));
out:
	signal_stop(&signals);
	wcx_child_kill(&mount.warming, SIGTERM);
	mount_free(&mount);
	return ret ? EXIT_FAILED : EXIT_OK;
}

/* Waits until the daemon says that the mount stands, or has ended without saying so: then its exit status is ours. */
static int wait_for_daemon(pid_t pid, int ready_fd)
{
	ssize_t bytes;
	int status;
	char byte;

	do
		bytes = read(ready_fd, &byte, 1);
	while (bytes < 0 && errno == EINTR);
	if (bytes == 1)
		return EXIT_OK;
	if (waitpid(pid, &status, 0) != pid)
		return EXIT_FAILED;
	if (WIFEXITED(status) && WEXITSTATUS(status) != EXIT_OK)
		return WEXITSTATUS(status);
	if (WIFSIGNALED(status))
		fprintf(stderr, "wcxfs: ended by signal %d before the store was mounted\n", WTERMSIG(status));
	return EXIT_FAILED;
}

/*
 * Forks before anything else is done, because threads and GPUs do not survive a fork.  The child reports errors to the
 * stderr it was given, so they come from the command that was typed.
 */
static int serve_in_background(struct fuse_args *args, const struct options *opts)
{
	int ready[2];
	pid_t pid;

	if (pipe2(ready, O_CLOEXEC)) {
		fprintf(stderr, "wcxfs: pipe: %s\n", strerror(errno));
		return EXIT_FAILED;
	}
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		fprintf(stderr, "wcxfs: fork: %s\n", strerror(errno));
		return EXIT_FAILED;
	}
	if (pid > 0) {
		close(ready[1]);
		return wait_for_daemon(pid, ready[0]);
	}
	/* Whatever the caller had open is not a daemon's to keep. */
	if ((ready[1] != READY_FD && dup3(ready[1], READY_FD, O_CLOEXEC) < 0) || close_range(READY_FD + 1, UINT_MAX, 0)) {
		fprintf(stderr, "wcxfs: %s\n", strerror(errno));
		return EXIT_FAILED;
	}
	return serve(args, opts);
}

/* A caller may have closed stdin, stdout or stderr: what got their numbers would be lost when we let go of the terminal. */
static int fill_standard_fds(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	return fd < 0 ? -errno : close(fd);
}

static int run(struct fuse_args *args, struct options *opts)
{
	if (parse_command_line(args, opts))
		return EXIT_USAGE;
	if (opts->help) {
		fputs(help_text, stdout);
		return EXIT_OK;
	}
	if (opts->version) {
		printf("wcxfs %s, libfuse %s\n", WCX_VERSION_TEXT, fuse_pkgversion());
		return EXIT_OK;
	}
	if (check_directories(opts) || check_warm(opts))
		return EXIT_FAILED;
	if (complete_arguments(args, opts)) {
		fprintf(stderr, "wcxfs: no memory\n");
		return EXIT_FAILED;
	}
	return opts->foreground ? serve(args, opts) : serve_in_background(args, opts);
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct options opts = { .decoder = WCX_DECODER_AUTO };
	int status;

	if (argc == 1 && !strcmp(argv[0], WCX_GUARD_NAME))
		return wcx_guard_main();
	if (fill_standard_fds())
		return EXIT_FAILED;
	signal(SIGCHLD, SIG_DFL); /* who started us may not care for children, and that is inherited */
	fuse_set_log_func(log_to_stderr);
	status = run(&args, &opts);
	fuse_opt_free_args(&args);
	free(opts.store);
	free(opts.mountpoint);
	free(opts.cache_text);
	free(opts.decoder_text);
	free(opts.prefetch_text);
	free(opts.readahead_text);
	free(opts.warm);
	return status;
}
