/* SPDX-License-Identifier: MIT */
/* Writes the daemon's messages to standard error, syslog or a file. */
#define FUSE_USE_VERSION 314

#include "fs/mount/log_output.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_log.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/mount/named_file.h"

enum {
	LINE_BYTES = 2048, /* a message has at most 640 bytes, libfuse's are shorter */
	LOG_MODE = 0640,
};

enum sink { SINK_STDERR, SINK_SYSLOG, SINK_FILE, SINK_NONE };

/* Set before there are threads, but for the file behind the descriptor, which dup3 replaces. */
static struct {
	enum sink sink;
	bool is_settled;
	bool has_levels; /* standard error is journald's, which understands "<3>" in front of a line */
	struct wcx_named_file file;
} output = { .file = WCX_NAMED_FILE_INIT };

static bool is_syslog_there(int *errnum_ret)
{
	static const int types[] = { SOCK_DGRAM, SOCK_STREAM };
	const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
	bool found = false;

	for (size_t i = 0; i < WCX_ARRAY_COUNT(types) && !found; i++) {
		const int fd = socket(AF_UNIX, types[i] | SOCK_CLOEXEC, 0);

		found = fd >= 0 && !connect(fd, (const struct sockaddr *)&address, sizeof address);
		*errnum_ret = found ? 0 : errno;
		if (fd >= 0)
			close(fd);
		if (*errnum_ret != EPROTOTYPE)
			break;
	}
	return found;
}

/*
 * Whether standard error is a pipe that a caller may read to its end, as a shell's $(...) does: a daemon that keeps it would
 * make that caller wait.  A pipe that process 1 has too is the log of a container.
 */
static bool is_captured(void)
{
	struct stat own, first;

	if (fstat(STDERR_FILENO, &own) || !(S_ISFIFO(own.st_mode) || S_ISSOCK(own.st_mode)))
		return false;
	return stat("/proc/1/fd/2", &first) || own.st_dev != first.st_dev || own.st_ino != first.st_ino;
}

static void use_syslog(bool in_foreground)
{
	int errnum;

	if (is_syslog_there(&errnum)) {
		openlog("wcxfs", LOG_PID, LOG_DAEMON);
		output.sink = SINK_SYSLOG;
	} else if (in_foreground || !is_captured()) {
		fuse_log(FUSE_LOG_WARNING, "no syslog (/dev/log: %s): messages go to standard error\n", strerror(errnum));
	} else {
		fuse_log(FUSE_LOG_WARNING,
			 "no syslog (/dev/log: %s), and standard error is a pipe that may be waited for: once the store is "
			 "mounted, messages are dropped; use -o log=FILE or log=stderr\n",
			 strerror(errnum));
		output.sink = SINK_NONE;
	}
}

/* Whether journald reads standard error: it then says so in the environment, and which descriptor it means. */
static bool is_journal(void)
{
	const char *text = getenv("JOURNAL_STREAM");
	uint64_t dev, ino;
	struct stat st;

	return text && sscanf(text, "%" SCNu64 ":%" SCNu64, &dev, &ino) == 2 && !fstat(STDERR_FILENO, &st) &&
	       st.st_dev == dev && st.st_ino == ino;
}

/* libfuse logs some lines, and the trace of requests, in parts. */
static _Thread_local bool is_in_line;

/* One write, so that lines of several threads or daemons do not mix. */
static void write_to_file(enum fuse_log_level level, const char *format, va_list args)
{
	char line[LINE_BYTES];
	const time_t now = time(NULL);
	size_t used = 0;
	ssize_t written;
	struct tm tm;
	int n;

	if (level < FUSE_LOG_DEBUG && !is_in_line && localtime_r(&now, &tm)) {
		used = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S%z ", &tm);
		used += (size_t)snprintf(line + used, sizeof line - used, "wcxfs[%d]: ", (int)getpid());
	}
	n = vsnprintf(line + used, sizeof line - used, format, args);
	used = WCX_MIN(used + (n > 0 ? (size_t)n : 0), sizeof line - 1);
	written = write(output.file.fd, line, used);
	(void)written; /* when the disk is full, there is nobody to tell */
}

static void write_to_stderr(enum fuse_log_level level, const char *format, va_list args)
{
	flockfile(stderr);
	if (output.has_levels && level < FUSE_LOG_DEBUG && !is_in_line)
		fprintf(stderr, "<%d>", (int)level); /* libfuse's levels have syslog's numbers */
	else if (level < FUSE_LOG_DEBUG && !is_in_line)
		fputs("wcxfs: ", stderr);
	vfprintf(stderr, format, args);
	funlockfile(stderr);
}

static void write_message(enum fuse_log_level level, const char *format, va_list args)
{
	va_list again;

	va_copy(again, args);
	if (output.sink == SINK_STDERR || !output.is_settled)
		write_to_stderr(level, format, again);
	va_end(again);
	if (output.sink == SINK_FILE)
		write_to_file(level, format, args);
	else if (output.sink == SINK_SYSLOG)
		vsyslog((int)level, format, args);
	is_in_line = *format && format[strlen(format) - 1] != '\n';
}

enum wcx_log_kind wcx_log_kind_parse(const char *text)
{
	if (strcmp(text, "stderr") == 0)
		return WCX_LOG_STDERR;
	return strcmp(text, "syslog") == 0 ? WCX_LOG_SYSLOG : WCX_LOG_FILE;
}

void wcx_log_to_stderr(void)
{
	output.has_levels = is_journal();
	fuse_set_log_func(write_message);
}

int wcx_log_open(enum wcx_log_kind kind, const char *path, bool in_foreground, struct wcx_error *err)
{
	int r;

	if (kind == WCX_LOG_SYSLOG || (kind == WCX_LOG_DEFAULT && !in_foreground))
		use_syslog(in_foreground);
	if (kind != WCX_LOG_FILE)
		return 0;
	r = wcx_named_file_open(&output.file, path, O_APPEND, LOG_MODE, err);
	if (!r)
		output.sink = SINK_FILE;
	return r;
}

bool wcx_log_keeps_stderr(void)
{
	return output.sink == SINK_STDERR;
}

void wcx_log_settle(void)
{
	output.is_settled = true;
}

bool wcx_log_can_reopen(void)
{
	return output.sink == SINK_FILE;
}

void wcx_log_reopen(void)
{
	int r;

	if (output.sink != SINK_FILE)
		return;
	r = wcx_named_file_reopen(&output.file, O_APPEND, LOG_MODE);
	if (r)
		fuse_log(FUSE_LOG_ERR, "%s: cannot be opened again: %s\n", output.file.name, strerror(-r));
}
