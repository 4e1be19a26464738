/* SPDX-License-Identifier: MIT */
/* Builds a mounted store up, serves it, and takes it down. */
#define FUSE_USE_VERSION 314

#include "fs/mount/session.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/clock.h"
#include "fs/mount/connection.h"
#include "fs/mount/fuse_ops.h"
#include "fs/mount/guard.h"
#include "fs/mount/log_output.h"
#include "fs/mount/notify.h"
#include "fs/mount/page_asker.h"
#include "fs/mount/privileges.h"
#include "fs/mount/status_text.h"
#include "fs/mount/store.h"
#include "fs/mount/warm_child.h"
#include "fs/read/decoder.h"
#include "fs/read/tile_cache.h"

enum {
	THREADS_PER_CPU = 2,     /* while one waits for the disk or the GPU, another copies */
	THREADS_MIN = 32,        /* half of them serve one file: what a loader uses at once on a small machine */
	THREADS_MIN_MEMORY = 16, /* with little memory */
	THREADS_MAX = 128,
	PREFETCH_THREADS_MIN = 2,
	PREFETCH_THREADS_MAX = 16,
	FILE_PUSHERS = 4, /* in turn: meanwhile, the others decode */
	/*
	 * With a GPU, a piece costs a launch, whatever its size, and hardly any time of a core.  More of them only move more
	 * memory through the caches.
	 */
	FILE_PIECES_GPU = 6,
	FILE_PUSHERS_GPU = 3,
	DECODED_PIECES_MIN = 4, /* by cores too, if the GPU has buffers for fewer */
	PIECE_BYTES = 1 << 20,
	PIECE_BYTES_GPU = 4 << 20,
	LOCK_MS = 10,
	LOCK_TRIES = 300,
	BUFFER_SHARE = 4, /* of cache_size, that buffers of the GPU may take */
	IDLE_MS = 10000,  /* until memory that nobody uses is given back */
	STOP_MS = 10,
	GIVE_UP_S = 10, /* how long the end waits for a store that does not answer, as requests.c does until then */
};

#define LITTLE_MEMORY (UINT64_C(2) << 30)

/* In the order of build-up: a session in one state has everything up to it.  leave_state undoes one. */
enum session_state {
	STATE_NOTHING,
	STATE_CHILDREN, /* the guard and `wcx warm' are forked; both wait until they are told to begin */
	STATE_STORE,    /* cache, decoder, store and what the callbacks need, or the first few of them */
	STATE_FUSE_SESSION,
	STATE_HANDLERS, /* of libfuse, for the signals that end the loop */
	STATE_MOUNTED,  /* and the guard knows the mount */
	STATE_SERVING,
	STATE_WARMING, /* `wcx warm' has begun; its first request waits for the loop */
	STATE_SIGNAL_THREAD,
};

struct session {
	enum session_state state;
	const struct wcx_mount_options *opts;
	struct wcx_child guard, warming; /* the signal thread's while there is one */
	struct wcx_tile_cache *cache;
	struct wcx_decoder *decoder;
	uint64_t tile_bytes, buffer_bytes; /* of cache_size: for tiles, and for buffers of the GPU */
	struct wcx_store *store;
	struct wcx_fuse *fuse;
	struct fuse_session *fuse_session;
	struct wcx_page_asker *asker;
	int device_minor;        /* of the mount, as found when it was made; -1: unknown */
	pthread_t signal_thread; /* logs counters, opens the log again, reaps children */
	atomic_bool stop_signal_thread;
	uint64_t started_ms;
};

/* --- requests outside the loop --- */

/* Waits for a request and replies to it; returns its bytes, or 0 or less when the connection has ended. */
static int answer_one(struct fuse_session *fuse_session)
{
	struct fuse_buf buffer = { 0 };
	int bytes;

	do
		bytes = fuse_session_receive_buf(fuse_session, &buffer);
	while (bytes == -EINTR);
	if (bytes > 0)
		fuse_session_process_buf(fuse_session, &buffer);
	free(buffer.mem);
	return bytes;
}

/* POLLIN alone if there is a request, and the connection has not ended. */
static int poll_session(struct fuse_session *fuse_session)
{
	struct pollfd pollfd = { .fd = fuse_session_fd(fuse_session), .events = POLLIN };

	return poll(&pollfd, 1, 0) < 0 ? POLLERR : pollfd.revents;
}

/*
 * Ends the prefetching threads.  One may be blocked in the kernel on a page that a reader has locked until its request is
 * answered, so requests are answered until all threads have exited; or one may wait for the store, until the session is
 * given up.  The connection is not aborted: libfuse would then take the mount to be gone, and leave it.
 */
static void stop_prefetching(struct session *session)
{
	struct fuse_session *fuse_session = session->fuse_session;

	fuse_session_reset(fuse_session); /* lets requests be received after the end of the loop */
	while (wcx_fuse_stop(session->fuse, STOP_MS))
		while (poll_session(fuse_session) == POLLIN && answer_one(fuse_session) > 0)
			;
	alarm(GIVE_UP_S); /* unmounting with a program, and closing, may wait for the store */
}

/*
 * Without starting a program, as libfuse may: that closes the files of the store that it inherits, for which a store that
 * does not answer makes it wait.  What is mounted there by now may be another's, who did not wait for this daemon's end.
 */
static void unmount(void *user)
{
	struct session *session = user;
	const struct wcx_mount_options *opts = session->opts;
	const int fd = fuse_session_fd(session->fuse_session);
	int r = -EOPNOTSUPP;

	if (opts->fuse_fd >= 0) {
		wcx_connection_unmount(opts->fuse_fd);
		return;
	}
	if (session->device_minor >= 0)
		r = wcx_connection_unmount_at(fd, opts->mountpoint, session->device_minor);
	/* Users may not: it is for fusermount3.  For a connection that has ended, libfuse only frees what it knows. */
	if ((r && r != -ENOENT) || !wcx_connection_is_alive(fd))
		fuse_session_unmount(session->fuse_session);
}

/* --- signals --- */

/*
 * The signals that end the daemon go to the main thread, whose wait they interrupt; the others go to the signal thread.  So
 * all are blocked before any thread is created, CUDA's too, and the main thread unblocks its own when it serves requests.
 */
static const int ending_signals[] = { SIGTERM, SIGINT, SIGHUP }, reporting_signals[] = { SIGUSR1, SIGCHLD, SIGHUP };

/* SIGHUP, the last of both, ends the daemon unless its log is a file, which is then opened again. */
static size_t ending_count(void)
{
	return WCX_ARRAY_COUNT(ending_signals) - (wcx_log_can_reopen() ? 1 : 0);
}

static size_t reporting_count(void)
{
	return WCX_ARRAY_COUNT(reporting_signals) - (wcx_log_can_reopen() ? 0 : 1);
}

static sigset_t signal_set(const int *signals, size_t count)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < count; i++)
		sigaddset(&set, signals[i]);
	return set;
}

static void mask_signals(int how, const int *signals, size_t count)
{
	const sigset_t set = signal_set(signals, count);

	pthread_sigmask(how, &set, NULL);
}

static void log_counters(const struct session *session)
{
	struct wcx_prefetch_stats ahead;
	struct wcx_tile_cache_stats tiles;

	wcx_tile_cache_get_stats(session->cache, &tiles);
	fuse_log(FUSE_LOG_INFO,
		 "tiles: %" PRIu64 " hits, %" PRIu64 " misses, %" PRIu64 " waits, %" PRIu64 " evictions; %" PRIu64
		 " bytes cached, at most %" PRIu64 "\n",
		 tiles.hits, tiles.misses, tiles.waits, tiles.evictions, tiles.bytes, tiles.peak_bytes);
	wcx_fuse_get_stats(session->fuse, &ahead);
	fuse_log(FUSE_LOG_INFO,
		 "requests: %" PRIu64 " for %" PRIu64 " bytes; prefetched: %" PRIu64 " bytes pushed, %" PRIu64
		 " decoded; %" PRIu64 " readers followed, %" PRIu64 " given up\n",
		 ahead.requests, ahead.requested_bytes, ahead.pushed_bytes, ahead.decoded_bytes, ahead.followed,
		 ahead.given_up);
}

/* For the attribute user.wcx.status. */
static char *describe(void *user)
{
	const struct session *session = user;
	struct wcx_status status = {
		.uptime_s = (double)(wcx_now_ms() - session->started_ms) * 1e-3,
		.cache_budget_bytes = session->tile_bytes,
		.gpu_buffer_bytes = session->buffer_bytes,
		.decoder = wcx_decoder_name(session->decoder),
		.errors = wcx_fuse_error_count(session->fuse),
	};

	wcx_tile_cache_get_stats(session->cache, &status.cache);
	wcx_decoder_get_stats(session->decoder, &status.decoded);
	wcx_fuse_get_stats(session->fuse, &status.requests);
	wcx_store_get_stats(session->store, &status.plain);
	return wcx_status_print(&status);
}

static void log_warming(struct session *session)
{
	const char *path = session->opts->warm;
	int status;

	if (!wcx_warm_child_reap(&session->warming, &status))
		return;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		fuse_log(FUSE_LOG_INFO, "%s: in the page cache\n", path);
	else if (WIFEXITED(status))
		fuse_log(FUSE_LOG_ERR, "%s: not warmed: `wcx warm' failed with status %d\n", path, WEXITSTATUS(status));
	else
		fuse_log(FUSE_LOG_ERR, "%s: not warmed: `wcx warm' was killed by signal %d\n", path, WTERMSIG(status));
}

/* Reaps every child: PID 1 of a container gets all orphans, and a program that executed wcxfs may have had children. */
static void reap_children(struct session *session)
{
	siginfo_t child = { .si_pid = 0 };

	while (!waitid(P_ALL, 0, &child, WEXITED | WNOHANG | WNOWAIT) && child.si_pid) {
		if (child.si_pid == session->warming.pid)
			log_warming(session);
		else if (child.si_pid == session->guard.pid)
			wcx_guard_end(&session->guard);
		else
			waitpid(child.si_pid, NULL, WNOHANG);
		child.si_pid = 0;
	}
}

static void tidy(struct session *session)
{
	wcx_store_release_unused(session->store);
	wcx_decoder_release_idle(session->decoder, IDLE_MS);
	wcx_decoder_pin_ahead(session->decoder);
}

static void *signal_loop(void *arg)
{
	const sigset_t reporting = signal_set(reporting_signals, reporting_count());
	const struct timespec tidy_interval = { .tv_sec = 2 }; /* a deleted file keeps its disk space so long at most */
	struct session *session = arg;
	int number;

	while (!session->stop_signal_thread) {
		number = sigtimedwait(&reporting, NULL, &tidy_interval);
		if (session->stop_signal_thread)
			break;
		if (number == SIGUSR1)
			log_counters(session);
		else if (number == SIGCHLD)
			reap_children(session);
		else if (number == SIGHUP)
			wcx_log_reopen();
		else if (number < 0 && errno == EAGAIN)
			tidy(session);
	}
	return NULL;
}

static void stop_signal_thread(struct session *session)
{
	session->stop_signal_thread = true;
	pthread_kill(session->signal_thread, SIGUSR1);
	pthread_join(session->signal_thread, NULL);
}

/* --- build-up --- */

static int fork_children(struct session *session)
{
	const struct wcx_mount_options *opts = session->opts;
	int r = wcx_guard_fork(&session->guard);

	session->state = STATE_CHILDREN;
	if (!r && opts->warm)
		r = wcx_warm_child_fork(opts->warm, opts->foreground, &session->warming);
	if (r)
		fuse_log(FUSE_LOG_ERR, "cannot fork: %s\n", strerror(-r));
	return r;
}

static void log_notice(void *user, const char *text)
{
	(void)user;
	fuse_log(FUSE_LOG_NOTICE, "%s\n", text);
}

static unsigned prefetch_threads(const struct wcx_mount_options *opts)
{
	return WCX_CLAMP(opts->host.cores, (unsigned)PREFETCH_THREADS_MIN, (unsigned)PREFETCH_THREADS_MAX);
}

static unsigned thread_count(const struct wcx_mount_options *opts)
{
	const unsigned least = opts->host.memory_bytes < LITTLE_MEMORY ? THREADS_MIN_MEMORY : THREADS_MIN;

	return WCX_CLAMP(THREADS_PER_CPU * opts->host.cores, least, (unsigned)THREADS_MAX);
}

/* That read-ahead has in hand at a time: one a thread, and those that a GPU decodes. */
static unsigned pieces(const struct session *session)
{
	return prefetch_threads(session->opts) + wcx_decoder_gpu_calls(session->decoder);
}

/* Creates the cache of tiles with what the buffers of a GPU leave of cache_size. */
static int create_cache(struct session *session, struct wcx_error *err)
{
	const uint64_t cache_bytes = session->opts->cache_bytes;

	session->buffer_bytes = WCX_MIN(wcx_decoder_buffer_bytes(session->decoder), cache_bytes / BUFFER_SHARE);
	session->tile_bytes = cache_bytes - session->buffer_bytes;
	session->cache = wcx_tile_cache_create(session->tile_bytes);
	return session->cache ? 0 : wcx_fail(err, ENOMEM, "no memory for the tile cache");
}

static int open_store(struct session *session)
{
	const struct wcx_mount_options *opts = session->opts;
	struct wcx_error err;
	int r;

	session->state = STATE_STORE;
	r = wcx_decoder_create_within(opts->decoder, opts->cache_bytes / BUFFER_SHARE, log_notice, NULL, &session->decoder,
				      &err);
	if (!r)
		r = create_cache(session, &err);
	if (!r) {
		void *memory;
		const size_t bytes = wcx_tile_cache_memory(session->cache, &memory);

		wcx_decoder_use_memory(session->decoder, memory, bytes, opts->cache_bytes, prefetch_threads(opts));
		wcx_decoder_limit(session->decoder, thread_count(opts) + pieces(session)); /* nobody waits for one */
		r = wcx_store_create(opts->store, session->cache, session->decoder, &session->store, &err);
	}
	if (!r) {
		r = wcx_fuse_create(session->store, &session->fuse);
		if (r)
			wcx_fail(&err, -r, "%s: %s", opts->store, strerror(-r));
	}
	if (r)
		fuse_log(FUSE_LOG_ERR, "%s\n", err.text);
	return r;
}

/*
 * Of several daemons started at once, the first to get the lock mounts; the others then find its mount.  The lock is on the
 * directory below the mount: it lasts until the descriptor is closed or the daemon dies, and no child inherits it.  A
 * directory that cannot be read or locked is not locked; nor, in the end, one that stays locked, since whoever may read it
 * can lock it for as long as they like.  *fd_ret is -1 if it cannot be read.
 */
static int lock_mount_point(const char *mountpoint, int *fd_ret)
{
	const struct timespec pause = { .tv_nsec = LOCK_MS * 1000000L };
	const int fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = 0;

	for (int i = 0; i < LOCK_TRIES && fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK; i++)
		nanosleep(&pause, NULL);
	if (wcx_connection_exists(mountpoint)) {
		r = wcx_connection_is_dead(mountpoint) ? -ENOTCONN : -EBUSY;
		fuse_log(FUSE_LOG_ERR, "mount point %s: %s\n", mountpoint,
			 r == -EBUSY ? "a store is already mounted there" : strerror(-r));
	}
	if (r && fd >= 0)
		close(fd);
	*fd_ret = r ? -1 : fd;
	return r;
}

/* Mounts, and finds the mount's device. */
static int mount_at(struct session *session, const char *mountpoint)
{
	const int fuse_fd = session->opts->fuse_fd;
	int lock_fd = -1, r = fuse_fd < 0 ? lock_mount_point(mountpoint, &lock_fd) : 0;
	char fd_path[32];

	if (r)
		return r;
	snprintf(fd_path, sizeof fd_path, "/dev/fd/%d", fuse_fd);
	if (fuse_session_mount(session->fuse_session, fuse_fd < 0 ? mountpoint : fd_path)) {
		fuse_log(FUSE_LOG_ERR, "cannot mount at %s\n", mountpoint);
		r = -EIO;
	} else {
		session->device_minor = wcx_connection_number(mountpoint);
	}
	if (lock_fd >= 0)
		close(lock_fd);
	return r;
}

static int mount_store(struct session *session)
{
	const struct wcx_mount_options *opts = session->opts;
	struct fuse_args args = FUSE_ARGS_INIT(opts->libfuse_argc, opts->libfuse_argv);
	int r;

	session->fuse_session = fuse_session_new(&args, &wcx_fuse_ops, sizeof wcx_fuse_ops, session->fuse);
	fuse_opt_free_args(&args); /* libfuse's copy */
	if (!session->fuse_session)
		return -EINVAL; /* libfuse has logged why */
	session->state = STATE_FUSE_SESSION;
	if (fuse_set_signal_handlers(session->fuse_session))
		return -EINVAL;
	session->state = STATE_HANDLERS;
	r = mount_at(session, opts->mountpoint);
	if (r)
		return r;
	if (session->device_minor >= 0)
		wcx_store_set_own_device(session->store, makedev(0, (unsigned)session->device_minor));
	wcx_guard_watch(&session->guard, opts->mountpoint);
	session->state = STATE_MOUNTED;
	return 0;
}

/* What is decoded ahead for O_DIRECT readers must stay in the cache until they ask for it. */
static uint64_t window_bytes(const struct session *session)
{
	return WCX_MIN(session->opts->prefetch_bytes, session->tile_bytes / 4);
}

/* Of one file's O_DIRECT readers.  They wait for tiles, and those who answer them need cores too. */
static unsigned direct_pieces(const struct wcx_mount_options *opts)
{
	return WCX_MAX(prefetch_threads(opts) * 3 / 4, (unsigned)PREFETCH_THREADS_MIN);
}

/* Where the kernel has the read-ahead of the mount, in KiB. */
enum { READAHEAD_PATH_BYTES = 64 };

static void readahead_path(const struct session *session, char path[READAHEAD_PATH_BYTES])
{
	snprintf(path, READAHEAD_PATH_BYTES, "/sys/class/bdi/0:%d/read_ahead_kb", session->device_minor);
}

/* The kernel's read-ahead for the mount; 0 if that is unknown. */
static uint64_t kernel_readahead(const struct session *session)
{
	unsigned long kib = 0;
	char path[READAHEAD_PATH_BYTES];
	FILE *file;

	readahead_path(session, path);
	file = fopen(path, "re");
	if (file && fscanf(file, "%lu", &kib) != 1)
		kib = 0;
	if (file)
		fclose(file);
	return (uint64_t)kib << 10;
}

/* Where a GPU decodes; tests have it without one.  NULL: pages are pushed. */
static struct wcx_page_asker *create_asker(const struct session *session, bool is_gpu)
{
	const char *way = getenv("WCX_PAGES");
	const bool is_wanted = way ? !strcmp(way, "ask") : is_gpu;

	if (!is_wanted || session->opts->fuse_fd >= 0 || session->device_minor < 0)
		return NULL;
	return wcx_page_asker_create(session->opts->mountpoint, makedev(0, (unsigned)session->device_minor),
				     kernel_readahead(session));
}

static int start_serving(struct session *session)
{
	const struct wcx_mount_options *opts = session->opts;
	const uint64_t window = window_bytes(session);
	const unsigned gpu_calls = wcx_decoder_gpu_calls(session->decoder);
	const bool is_gpu = gpu_calls > 0;
	struct wcx_page_asker *const asker = session->asker = create_asker(session, is_gpu);
	const struct wcx_fuse_options options = {
		.session = session->fuse_session,
		.unmount = unmount,
		.unmount_user = session,
		.threads = thread_count(opts),
		.timeout_ms = opts->store_timeout_s * 1000,
		.prefetch_threads = window ? prefetch_threads(opts) : 0,
		.window_bytes = window,
		.piece_bytes = is_gpu ? PIECE_BYTES_GPU : PIECE_BYTES,
		.pieces = pieces(session),
		.decoded_pieces = is_gpu ? WCX_MAX(gpu_calls, (unsigned)DECODED_PIECES_MIN) : PREFETCH_THREADS_MAX,
		.file_pieces = is_gpu ? FILE_PIECES_GPU : PREFETCH_THREADS_MAX,
		.direct_pieces = direct_pieces(opts),
		.file_pushers = is_gpu ? FILE_PUSHERS_GPU : FILE_PUSHERS,
		.drop_packed = opts->drop_packed,
		.asker = asker,
	};
	int r;

	wcx_decoder_start_crew(session->decoder);
	r = wcx_fuse_start(session->fuse, &options);
	if (r)
		fuse_log(FUSE_LOG_ERR, "no memory for serving\n");
	else
		session->state = STATE_SERVING;
	session->started_ms = wcx_now_ms();
	if (!r)
		wcx_fuse_set_status(session->fuse, describe, session);
	return r;
}

/* Sets the kernel's read-ahead through /sys: in its reply to FUSE_INIT a server can only lower it. */
static int set_readahead(struct session *session)
{
	char path[READAHEAD_PATH_BYTES];
	int r = answer_one(session->fuse_session), fd; /* FUSE_INIT, whose reply would otherwise override the new value */

	if (r <= 0) {
		r = r ? r : -EIO;
		fuse_log(FUSE_LOG_ERR, "%s: %s\n", session->opts->mountpoint, strerror(-r));
		return r;
	}
	readahead_path(session, path);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || dprintf(fd, "%" PRIu64, session->opts->readahead_bytes >> 10) < 0)
		fuse_log(FUSE_LOG_NOTICE, "cannot set the kernel's read-ahead: %s\n", strerror(errno));
	if (fd >= 0)
		close(fd);
	return 0;
}

static int drop_privileges(void)
{
	const int r = wcx_privileges_drop(WCX_PRIVILEGES_UNMOUNT);

	if (r)
		fuse_log(FUSE_LOG_ERR, "cannot drop privileges: %s\n", strerror(-r));
	return r;
}

/* Threads have the privileges of the one that creates them, so these are dropped first. */
static int start_threads(struct session *session)
{
	int r = drop_privileges();

	if (!r && session->opts->set_readahead)
		r = set_readahead(session); /* first: who asks for pages asks for as many as the kernel takes */
	if (!r)
		r = start_serving(session);
	if (r)
		return r;
	wcx_warm_child_start(&session->warming);
	session->state = STATE_WARMING;
	r = -pthread_create(&session->signal_thread, NULL, signal_loop, session);
	if (r)
		fuse_log(FUSE_LOG_ERR, "cannot start a thread: %s\n", strerror(-r));
	else
		session->state = STATE_SIGNAL_THREAD;
	return r;
}

/* --- serving --- */

/* Serves requests until the mount or a signal ends the loop.  Never ends idle threads: libfuse advises against it. */
static int run_loop(struct fuse_session *fuse_session, unsigned threads)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int r;

	if (!config)
		return -ENOMEM;
	fuse_loop_cfg_set_clone_fd(config, 1);
	fuse_loop_cfg_set_max_threads(config, threads);
	r = fuse_session_loop_mt(fuse_session, config);
	fuse_loop_cfg_destroy(config);
	return r > 0 ? 0 : r; /* positive: the signal that ended the loop */
}

static void log_gpu_memory(const struct session *session)
{
	struct wcx_decoder_stats stats;

	wcx_decoder_get_stats(session->decoder, &stats);
	if (stats.gpu_device_bytes)
		fuse_log(FUSE_LOG_INFO,
			 "for the GPU: %" PRIu64 " MiB of its memory, besides what CUDA takes; of the cache's %" PRIu64
			 " MiB at most %" PRIu64 " for its buffers, and %" PRIu64 " pinned so far\n",
			 stats.gpu_device_bytes >> 20, session->opts->cache_bytes >> 20, session->buffer_bytes >> 20,
			 stats.gpu_pinned_bytes >> 20);
}

static int serve(struct session *session, wcx_mounted_fn *on_mounted, void *user)
{
	const struct wcx_mount_options *opts = session->opts;
	int r = on_mounted(user);

	if (!r) {
		fuse_log(FUSE_LOG_INFO, "%s mounted at %s, decoding with %s\n", opts->store, opts->mountpoint,
			 wcx_decoder_name(session->decoder));
		fuse_log(FUSE_LOG_INFO,
			 "cache of %" PRIu64 " MiB, read-ahead of %" PRIu64 " MiB; memory %" PRIu64 " MiB%s, %u cores%s\n",
			 opts->cache_bytes >> 20, window_bytes(session) >> 20, opts->host.memory_bytes >> 20,
			 opts->host.is_memory_limited ? " by control group" : "", opts->host.cores,
			 opts->host.is_cpu_limited ? " by affinity or quota" : "");
		log_gpu_memory(session);
		mask_signals(SIG_UNBLOCK, ending_signals, ending_count());
		r = run_loop(session->fuse_session, thread_count(opts));
	}
	if (r)
		fuse_log(FUSE_LOG_ERR, "%s: %s\n", opts->mountpoint, strerror(-r));
	return r;
}

/* --- teardown --- */

static void leave_state(struct session *session)
{
	switch (session->state) {
	case STATE_SIGNAL_THREAD:
		stop_signal_thread(session);
		break;
	case STATE_WARMING:
		wcx_child_kill(&session->warming, SIGTERM);
		break;
	case STATE_SERVING:
		stop_prefetching(session);
		break;
	case STATE_MOUNTED:
		wcx_guard_end(&session->guard);
		unmount(session);
		break;
	case STATE_HANDLERS:
		fuse_remove_signal_handlers(session->fuse_session);
		break;
	case STATE_FUSE_SESSION:
		fuse_session_destroy(session->fuse_session);
		break;
	case STATE_STORE:
		wcx_fuse_free(session->fuse);
		wcx_page_asker_free(session->asker);
		wcx_store_free(session->store);
		alarm(0);
		wcx_decoder_free(session->decoder);
		wcx_tile_cache_free(session->cache);
		break;
	case STATE_CHILDREN: /* those that were never told to begin */
		wcx_guard_end(&session->guard);
		wcx_child_kill(&session->warming, SIGTERM);
		break;
	case STATE_NOTHING:
		break;
	}
}

/*
 * Undoes the build-up from the state it reached.  Any of it may wait for a store that does not answer: until it has stopped
 * prefetching, the watcher of the requests limits that, and then SIGALRM, which kills the daemon.  A second ending signal
 * must neither kill the daemon before it has unmounted, nor make libfuse drop the requests still to be answered.
 */
static void tear_down(struct session *session)
{
	mask_signals(SIG_BLOCK, ending_signals, ending_count());
	wcx_notify("STOPPING=1\nSTATUS=unmounting");
	wcx_fuse_end(session->fuse);
	while (session->state != STATE_NOTHING) {
		leave_state(session);
		session->state--;
	}
}

int wcx_session_run(const struct wcx_mount_options *opts, wcx_mounted_fn *on_mounted, void *user)
{
	struct session session = { .opts = opts };
	int r = fork_children(&session);

	if (!r) {
		signal(SIGPIPE, SIG_IGN); /* writing to a child that has exited */
		mask_signals(SIG_BLOCK, ending_signals, ending_count());
		mask_signals(SIG_BLOCK, reporting_signals, reporting_count());
		signal(SIGALRM, SIG_DFL); /* the caller may have had it ignored */
		if (wcx_log_can_reopen())
			signal(SIGHUP, SIG_DFL); /* under nohup it would be ignored */
		r = open_store(&session);
	}
	if (!r)
		r = mount_store(&session);
	if (!r)
		r = start_threads(&session);
	if (!r)
		r = serve(&session, on_mounted, user);
	tear_down(&session);
	return r;
}
