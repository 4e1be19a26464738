/* SPDX-License-Identifier: MIT */
/* Parses and checks the command line of wcxfs. */
#include "fs/mount/mount_options.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_opt.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/path.h"
#include "fs/base/suggest.h"
#include "fs/mount/connection.h"
#include "fs/mount/fuse_ops.h"
#include "fs/mount/mount_helper.h"

enum { DAY_S = 86400, STORE_TIMEOUT_S = 60 };

static const uint64_t prefetch_max_bytes = UINT64_C(64) << 20; /* at 6 GB/s, 10 ms */
static const uint64_t cache_min_bytes = UINT64_C(32) << 20;
static const uint64_t cache_max_bytes = UINT64_C(8) << 30;

const char wcx_mount_help[] =
	"usage: wcxfs STORE MOUNTPOINT [-o OPTION[,OPTION...]] [-f] [-d]\n"
	"\n"
	"Mounts the directory STORE, read-only, at the directory MOUNTPOINT.  A packed file NAME.wcx appears as NAME, with\n"
	"the original's size and bytes; everything else appears unchanged.  MOUNTPOINT may be /dev/fd/N, a descriptor of\n"
	"/dev/fuse that the caller has mounted.\n"
	"\n"
	"Options:\n"
	"  -o cache_size=BYTES  memory for decoded tiles; K, M, G or T multiply by powers of 1024\n"
	"                       (default: 1/8 of the memory this process may use, by\n"
	"                       machine and control group; at least 32M, at most 8G)\n"
	"  -o decoder=KIND      auto: the GPU for batches where it saves CPU time (default); cpu; cuda: fail without a\n"
	"                       GPU; cuda:N: the GPU of that number\n"
	"  -o prefetch=BYTES    how far to decode ahead of a sequential reader; 0: not at all\n"
	"                       (default: 64M, at most 1/16 of that memory)\n"
	"  -o readahead=BYTES   kernel read-ahead per file (default: the kernel's own, usually 128K); raising it needs "
	"root\n"
	"  -o drop_packed       evict packed bytes from the page cache once they are decoded ahead of a reader, so that a\n"
	"                       model is not in memory twice\n"
	"  -o store_timeout=SECONDS\n"
	"                       what waits for the store for so long fails with EIO (default: 60; 0: never)\n"
	"  -o warm=PATH         once mounted, read a file or directory into the page cache; PATH is relative to the store, "
	". is\n"
	"                       all of it\n"
	"  -o log=FILE|stderr|syslog\n"
	"                       where messages go; a file is opened again at SIGHUP (default: with -f stderr, else\n"
	"                       syslog; where there is none, stderr)\n"
	"  -o pidfile=FILE      file with the daemon's process number while the store is mounted\n"
	"  -o allow_other       allow other users; needs root, or user_allow_other in /etc/fuse.conf\n"
	"  -o ...               any other option of libfuse, see mount.fuse3(8); nofail, _netdev, noauto, user, defaults,\n"
	"                       x-systemd.* and other options of /etc/fstab that are for others are ignored\n"
	"  -f                   stay in the foreground; log to standard error instead of syslog\n"
	"  -d                   like -f, and log every request\n"
	"  -h, --help           print this help\n"
	"  -V, --version        print versions\n"
	"\n"
	"wcxfs returns once the files can be used.  To unmount, run `fusermount3 -u MOUNTPOINT' or send SIGTERM, SIGINT or\n"
	"(unless log=FILE) SIGHUP; while warm=PATH is reading, the mount is busy and only a signal works.  SIGUSR1 logs "
	"the\n"
	"counters of cache and prefetching.\n"
	"\n"
	"As mount.wcxfs, the program is a helper of mount(8): `mount -t wcxfs STORE MOUNTPOINT -o ...', and in /etc/fstab\n"
	"  /data/models  /mnt/models  wcxfs  allow_other,nofail  0  0\n"
	"\n"
	"Exit codes: 0 mounted (with -f: unmounted again), 1 failure, 2 invalid command line; of mount.wcxfs: 0, 32, 1.\n"
	"\n"
	"Examples:\n"
	"  wcxfs /data/models /mnt/models\n"
	"  wcxfs /data/models /data/models -o allow_other,cache_size=16G    over the store itself\n"
	"  wcxfs ~/.cache/huggingface/hub ~/hub -o decoder=cpu -f           with links between packed files\n"
	"  wcxfs /data/models /mnt/models -o warm=llama                     decode a model before it is used\n"
	"  fusermount3 -u /mnt/models\n";

/* What fuse_opt_parse fills in. */
struct command_line {
	char *store, *mountpoint, *cache_size, *decoder, *prefetch, *readahead, *warm, *log, *pid_file, *store_timeout;
	int help, version, foreground, drop_packed, remount;
	struct wcx_error *err;
};

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

/* Parses the value of an option; without a value, keeps the default in *bytes. */
static int parse_size(const char *name, const char *text, uint64_t *bytes, struct wcx_error *err)
{
	if (!text || !parse_bytes(text, bytes))
		return 0;
	return wcx_fail(err, EINVAL, "%s=%s: not a number of bytes, such as 512M or 4G", name, text);
}

/* Likewise, for seconds of at most a day. */
static int parse_seconds(const char *name, const char *text, unsigned *seconds, struct wcx_error *err)
{
	unsigned value;
	int chars = 0;

	if (!text)
		return 0;
	if (*text < '0' || *text > '9' || sscanf(text, "%5u%n", &value, &chars) != 1 || text[chars] || value > DAY_S)
		return wcx_fail(err, EINVAL, "%s=%s: not a number of seconds, at most %d", name, text, DAY_S);
	*seconds = value;
	return 0;
}

/* Refuses an option that is nearly one of ours: libfuse would refuse it too, but not say what is meant. */
static int check_mistyped(const char *arg, struct wcx_error *err)
{
	static const char *const known[] = {
		"cache_size", "decoder", "prefetch", "readahead", "warm",        "drop_packed",
		"remount",    "debug",   "log",      "pidfile",   "allow_other", "store_timeout",
	};
	struct wcx_suggestion suggestion = { .word = arg, .word_bytes = strcspn(arg, "=") };

	for (size_t i = 0; i < WCX_ARRAY_COUNT(known); i++)
		wcx_suggest_more(&suggestion, known[i]);
	if (!suggestion.best || suggestion.best_distance == 0)
		return 0;
	return wcx_fail(err, EINVAL, "unknown option %s; did you mean `%s'?", arg, suggestion.best);
}

/* Called by fuse_opt_parse for what the table of options does not cover. */
static int take_argument(void *data, const char *arg, int key, struct fuse_args *args)
{
	struct command_line *line = data;
	char **place = !line->store ? &line->store : &line->mountpoint;

	(void)args;
	if (key == FUSE_OPT_KEY_OPT && wcx_mount_option_is_ignored(arg))
		return 0;
	if (key == FUSE_OPT_KEY_OPT && arg[0] == '-')
		return wcx_fail(line->err, 1, "unknown option %s", arg);
	if (key == FUSE_OPT_KEY_OPT && check_mistyped(arg, line->err))
		return -1;
	if (key != FUSE_OPT_KEY_NONOPT)
		return 1; /* libfuse's */
	if (*place)
		return wcx_fail(line->err, 1, "unexpected argument %s", arg);
	*place = strdup(arg);
	return *place ? 0 : wcx_fail(line->err, 1, "out of memory");
}

static int interpret(const struct command_line *line, struct wcx_mount_options *opts, struct wcx_error *err)
{
	uint64_t ram_bytes;

	wcx_host_limits_get(&opts->host);
	ram_bytes = opts->host.memory_bytes;
	if (!line->mountpoint)
		return wcx_fail(err, EINVAL, "STORE and MOUNTPOINT are required; see `wcxfs --help'");
	opts->cache_bytes = WCX_CLAMP(ram_bytes / 8, cache_min_bytes, cache_max_bytes);
	opts->prefetch_bytes = WCX_MIN(ram_bytes / 16, prefetch_max_bytes);
	if (parse_size("cache_size", line->cache_size, &opts->cache_bytes, err) ||
	    parse_size("prefetch", line->prefetch, &opts->prefetch_bytes, err) ||
	    parse_size("readahead", line->readahead, &opts->readahead_bytes, err))
		return -EINVAL;
	if (parse_seconds("store_timeout", line->store_timeout, &opts->store_timeout_s, err))
		return -EINVAL;
	if ((line->log && !*line->log) || (line->pid_file && !*line->pid_file))
		return wcx_fail(err, EINVAL, "%s=: the name of a file is missing",
				line->log && !*line->log ? "log" : "pidfile");
	if (line->decoder && wcx_decoder_kind_parse(line->decoder, &opts->decoder))
		return wcx_fail(err, EINVAL, "decoder=%s: unknown; use auto, cpu, cuda or cuda:N", line->decoder);
	return 0;
}

/*
 * Takes over a mount that the caller has made and passes as /dev/fd/N, and puts the directory in its place.  Moves the
 * descriptor out of the way of those that a daemon gives numbers, and keeps it from other programs.
 */
static int adopt_mount(struct wcx_mount_options *opts, struct wcx_error *err)
{
	enum { FIRST_FD = 10 };
	char *path = NULL;
	int fd, chars = 0, r;
	struct stat st;

	if (!opts->mountpoint || sscanf(opts->mountpoint, "/dev/fd/%d%n", &fd, &chars) != 1 || opts->mountpoint[chars])
		return 0;
	if (fd <= STDERR_FILENO || fstat(fd, &st) || !S_ISCHR(st.st_mode))
		return wcx_fail(err, EBADF, "mount point %s: not a descriptor of /dev/fuse", opts->mountpoint);
	opts->fuse_fd = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FD);
	if (opts->fuse_fd < 0)
		return wcx_fail(err, errno, "mount point %s: %s", opts->mountpoint, strerror(errno));
	close(fd);
	r = wcx_connection_mountpoint(opts->fuse_fd, &path);
	if (path) {
		free(opts->mountpoint);
		opts->mountpoint = path;
	}
	if (r == -EPERM)
		return wcx_fail(err, EPERM, "mount point %s: mounted with allow_other but without default_permissions",
				opts->mountpoint);
	return 0;
}

int wcx_mount_options_parse(int argc, char **argv, struct wcx_mount_options *opts, struct wcx_error *err)
{
	static const struct fuse_opt specs[] = {
		{ "cache_size=%s", offsetof(struct command_line, cache_size), 0 },
		{ "decoder=%s", offsetof(struct command_line, decoder), 0 },
		{ "prefetch=%s", offsetof(struct command_line, prefetch), 0 },
		{ "readahead=%s", offsetof(struct command_line, readahead), 0 },
		{ "store_timeout=%s", offsetof(struct command_line, store_timeout), 0 },
		{ "warm=%s", offsetof(struct command_line, warm), 0 },
		{ "log=%s", offsetof(struct command_line, log), 0 },
		{ "pidfile=%s", offsetof(struct command_line, pid_file), 0 },
		{ "drop_packed", offsetof(struct command_line, drop_packed), 1 },
		{ "remount", offsetof(struct command_line, remount), 1 },
		{ "-f", offsetof(struct command_line, foreground), 1 },
		{ "-d", offsetof(struct command_line, foreground), 1 },
		{ "debug", offsetof(struct command_line, foreground), 1 },
		FUSE_OPT_KEY("-d", FUSE_OPT_KEY_KEEP),
		FUSE_OPT_KEY("debug", FUSE_OPT_KEY_KEEP),
		{ "-h", offsetof(struct command_line, help), 1 },
		{ "--help", offsetof(struct command_line, help), 1 },
		{ "-V", offsetof(struct command_line, version), 1 },
		{ "--version", offsetof(struct command_line, version), 1 },
		FUSE_OPT_END,
	};
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct command_line line = { .err = err };
	int r;

	err->text[0] = '\0';
	r = fuse_opt_parse(&args, &line, specs, take_argument) ? -EINVAL : 0;
	*opts = (struct wcx_mount_options){
		.show_help = line.help,
		.show_version = line.version,
		.foreground = line.foreground,
		.drop_packed = line.drop_packed,
		.remount = line.remount,
		.set_readahead = line.readahead != NULL,
		.store = line.store,
		.mountpoint = line.mountpoint,
		.fuse_fd = -1,
		.warm = line.warm,
		.log_kind = line.log ? wcx_log_kind_parse(line.log) : WCX_LOG_DEFAULT,
		.log_path = line.log,
		.pid_file = line.pid_file,
		.decoder = WCX_DECODER_AUTO,
		.store_timeout_s = STORE_TIMEOUT_S,
	};
	if (!r) {
		opts->libfuse_argc = args.argc;
		opts->libfuse_argv = args.argv;
	}
	if (!line.help && !line.version && adopt_mount(opts, err))
		r = -EINVAL;
	if (!r && !line.help && !line.version)
		r = interpret(&line, opts, err);
	free(line.cache_size);
	free(line.decoder);
	free(line.prefetch);
	free(line.readahead);
	free(line.store_timeout);
	return r;
}

/* Replaces *path with its absolute form. */
static int resolve_directory(const char *what, char **path, struct wcx_error *err)
{
	struct stat st;
	char *absolute = realpath(*path, NULL);
	int errnum = absolute ? 0 : errno;

	if (!errnum && stat(absolute, &st))
		errnum = errno;
	if (!errnum && !S_ISDIR(st.st_mode))
		errnum = ENOTDIR;
	if (!errnum && wcx_connection_is_dead(absolute))
		errnum = ENOTCONN;
	if (errnum) {
		free(absolute);
		return wcx_fail(err, errnum, "%s %s: %s%s", what, *path, strerror(errnum),
				errnum == ENOTCONN ? " (left by a dead mount; `fusermount3 -u' removes it)" : "");
	}
	free(*path);
	*path = absolute;
	return 0;
}

static int check_directories(struct wcx_mount_options *opts, struct wcx_error *err)
{
	int r = resolve_directory("store", &opts->store, err);

	if (!r && opts->fuse_fd < 0)
		r = resolve_directory("mount point", &opts->mountpoint, err);
	if (r || opts->fuse_fd >= 0)
		return r;
	if (!strcmp(opts->mountpoint, "/"))
		return wcx_fail(err, EINVAL, "mount point /: the root directory, which every program needs");
	if (wcx_connection_exists(opts->mountpoint))
		return wcx_fail(err, EBUSY, "mount point %s: a store is already mounted there", opts->mountpoint);
	if (strcmp(opts->store, opts->mountpoint) != 0 && wcx_path_is_in(opts->mountpoint, opts->store))
		return wcx_fail(err, EINVAL, "mount point %s: inside the store, which would contain itself",
				opts->mountpoint);
	return 0;
}

/* Whether a path, as shown, names something in the store. */
static bool is_in_store(const char *store, const char *path)
{
	char full[PATH_MAX];
	struct stat st;

	for (const char *name = path; *name; name += strcspn(name, "/"), name += strspn(name, "/"))
		if (strcspn(name, "/") == 2 && name[0] == '.' && name[1] == '.')
			return false;
	if (!*path || *path == '/' || snprintf(full, sizeof full, "%s/%s.wcx", store, path) >= (int)sizeof full)
		return false;
	if (!stat(full, &st))
		return true;
	full[strlen(full) - strlen(".wcx")] = '\0';
	if (stat(full, &st))
		return false;
	return !S_ISREG(st.st_mode) || strcmp(full + strlen(full) - strlen(".wcx"), ".wcx");
}

/* Replaces warm with the path in the mount. */
static int check_warm(struct wcx_mount_options *opts, struct wcx_error *err)
{
	char *path;

	if (!opts->warm)
		return 0;
	if (!is_in_store(opts->store, opts->warm))
		return wcx_fail(err, ENOENT, "warm=%s: not in the store %s, to which the path is relative", opts->warm,
				opts->store);
	if (asprintf(&path, "%s/%s", opts->mountpoint, opts->warm) < 0)
		return wcx_fail(err, ENOMEM, "%s", strerror(ENOMEM));
	free(opts->warm);
	opts->warm = path;
	return 0;
}

/* Adds our options for libfuse: before the user's those that they may override, after them those that must hold. */
static int complete_arguments(struct wcx_mount_options *opts, struct wcx_error *err)
{
	struct fuse_args args = { opts->libfuse_argc, opts->libfuse_argv, 1 };
	char max_read[64], *names = NULL, *fsname = NULL;
	bool failed;

	snprintf(max_read, sizeof max_read, "-omax_read=%d", WCX_FUSE_READ_BYTES);
	failed = fuse_opt_add_opt(&names, "subtype=wcxfs") || asprintf(&fsname, "fsname=%s", opts->store) < 0 ||
		 fuse_opt_add_opt_escaped(&names, fsname) || fuse_opt_insert_arg(&args, 1, names) ||
		 fuse_opt_insert_arg(&args, 1, "-o") || fuse_opt_add_arg(&args, "-oro,nosuid,nodev,default_permissions") ||
		 fuse_opt_add_arg(&args, max_read);
	free(names);
	free(fsname);
	opts->libfuse_argc = args.argc;
	opts->libfuse_argv = args.argv;
	return failed ? wcx_fail(err, ENOMEM, "%s", strerror(ENOMEM)) : 0;
}

int wcx_mount_options_check(struct wcx_mount_options *opts, struct wcx_error *err)
{
	int r;

	if (opts->remount)
		return wcx_fail(err, ENOTSUP,
				"%s: the options of a mounted store cannot be changed; unmount it and mount it again",
				opts->mountpoint);
	r = check_directories(opts, err);
	if (!r)
		r = check_warm(opts, err);
	return r ? r : complete_arguments(opts, err);
}

void wcx_mount_options_free(struct wcx_mount_options *opts)
{
	struct fuse_args args = { opts->libfuse_argc, opts->libfuse_argv, 1 };

	fuse_opt_free_args(&args);
	free(opts->store);
	free(opts->mountpoint);
	free(opts->warm);
	free(opts->log_path);
	free(opts->pid_file);
}
