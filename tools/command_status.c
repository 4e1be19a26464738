/* SPDX-License-Identifier: MIT */
/* wcx status: shows what mounts hold and do. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <mntent.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fs/base/array.h"
#include "fs/base/clock.h"
#include "fs/base/path.h"
#include "fs/base/walk.h"
#include "tools/command.h"
#include "tools/json_output.h"
#include "tools/status_report.h"

/* Attributes that the daemon makes (fs/mount/attributes.h). */
static const char status_attribute[] = "user.wcx.status", packed_bytes_attribute[] = "user.wcx.packed_bytes";

enum {
	ATTRIBUTE_BYTES = 1 << 16, /* Linux's limit */
	ANSWER_SECONDS = 10,       /* for an answer; a directory with very many files takes some */
	SIGN_OF_LIFE_MS = 500,
	ANSWER_FD = STDERR_FILENO + 1, /* in the child */
};

static const char help[] =
	"usage: wcx status [OPTIONS] [MOUNT...]\n"
	"\n"
	"Shows what mounts hold and do: files, packed and original bytes, cache and hit rate,\n"
	"bytes decoded by CPU and GPU and how fast, pages pushed ahead of readers, errors.\n"
	"Without MOUNT, of all mounts of this machine.  MOUNT may be a directory in a mount;\n"
	"then its files are counted.  Who may read where it is mounted may read its status.\n"
	"\n"
	"      --files         also show each packed file, and what was read of it\n"
	"      --no-walk       count no files: quick for a store with very many, or a slow one\n"
	"      --json          print one JSON object a line for each mount\n"
	"      --prometheus    print the text format of Prometheus, as for node_exporter's textfile collector\n"
	"  -h, --help          print this text\n"
	"\n"
	"Counters count from when the store was mounted.  The speed of decoding is per thread.\n"
	"Of a mount that answers nothing for 10 seconds this is told, and the next one is asked.\n"
	"\n"
	"Examples:\n"
	"  wcx status /mnt/models\n"
	"  wcx status --prometheus > /var/lib/node_exporter/wcxfs.prom\n"
	"\n"
	"Exit codes: 0 success, 1 a mount does not answer, is none of wcxfs, or has a directory that cannot be\n"
	"listed, 2 invalid command line.\n";

struct options {
	bool lists_files, walks, json, prometheus;
};

/* --- asking --- */

struct question {
	struct command *command;
	const struct options *options;
	char *path; /* in a mount */
	bool is_late;
	int fd; /* where the answer comes from: white space as a sign of life, then an object */
};

/* Reads on, for jansson. */
static size_t hear(void *buffer, size_t bytes, void *user)
{
	struct question *question = user;
	struct pollfd pollfd = { .fd = question->fd, .events = POLLIN };
	const int r = poll(&pollfd, 1, ANSWER_SECONDS * 1000);
	const ssize_t n = r > 0 ? read(question->fd, buffer, bytes) : -1;

	question->is_late = r == 0;
	return (size_t)n;
}

/* Keeps nothing of the command's: who waits for the end of what it prints must not wait for a child that is left. */
static void answer_and_exit(int fd, int messages, const struct question *question,
			    int (*answer)(const struct question *, FILE *))
{
	FILE *out;
	int status;

	for (int standard = STDIN_FILENO; standard <= STDERR_FILENO; standard++)
		dup2(messages, standard);
	if (fd != ANSWER_FD)
		dup2(fd, ANSWER_FD);
	close_range(ANSWER_FD + 1, UINT_MAX, 0);
	out = fdopen(ANSWER_FD, "w");
	status = out ? answer(question, out) : WCX_EXIT_FAILED;
	if (out)
		fflush(out);
	_exit(status);
}

/* Prints what a child has said. */
static void tell(int messages)
{
	char text[4096];
	ssize_t n;

	for (off_t at = 0; (n = pread(messages, text, sizeof text, at)) > 0; at += n)
		fwrite(text, 1, (size_t)n, stderr);
}

/*
 * Has a child process ask a mount, as answer does, which returns an exit code and may print an object.  While a daemon does
 * not answer a request that it has read, nothing ends the process that waits for it, not even SIGKILL: only a child can be
 * left. Returns the object or NULL.
 */
static json_t *ask(struct question *question, int (*answer)(const struct question *, FILE *), int *status_ret)
{
	const int messages = memfd_create("messages", MFD_CLOEXEC);
	json_t *object;
	int fds[2], status;
	pid_t pid = -1;

	question->is_late = false;
	*status_ret = WCX_EXIT_FAILED;
	if (messages >= 0 && pipe2(fds, O_CLOEXEC) == 0) {
		pid = fork();
		if (pid == 0)
			answer_and_exit(fds[1], messages, question, answer);
		close(fds[1]);
		question->fd = fds[0];
	}
	if (pid < 0) {
		perror("wcx status: no process to ask with");
		return NULL;
	}
	object = json_load_callback(hear, question, 0, NULL);
	close(fds[0]);
	tell(messages);
	close(messages);
	if (question->is_late || wcx_command_stop)
		kill(pid, SIGKILL); /* works once the daemon answers, if not now */
	else if (waitpid(pid, &status, 0) == pid && WIFEXITED(status))
		*status_ret = WEXITSTATUS(status);
	return object;
}

/* An attribute as a string that the caller frees; NULL with errno. */
static char *read_attribute(const char *path, const char *name)
{
	char *value = malloc(ATTRIBUTE_BYTES + 1);
	const ssize_t n = value ? lgetxattr(path, name, value, ATTRIBUTE_BYTES) : -1;

	if (n < 0) {
		free(value);
		return NULL;
	}
	value[n] = '\0';
	return value;
}

/* The JSON object of an attribute; NULL with errno. */
static json_t *read_object(const char *path)
{
	char *text = read_attribute(path, status_attribute);
	json_t *object = text ? json_loads(text, 0, NULL) : NULL;

	if (text && !object)
		errno = EBADMSG;
	free(text);
	return object;
}

/* --- files --- */

struct totals {
	uint64_t packed_files, packed_bytes, original_bytes, plain_files, plain_bytes;
	uint64_t unreadable_files; /* by whoever asks, so that it cannot be told which they are */
};

static void add_file(json_t *list, const struct wcx_walk *entry, const char *path, uint64_t packed_bytes)
{
	json_t *file = read_object(entry->path);

	if (!file)
		file = json_object();
	wcx_json_set_path(file, "path", path);
	wcx_json_set_count(file, "original_bytes", (uint64_t)entry->st.st_size);
	wcx_json_set_count(file, "packed_bytes", packed_bytes);
	json_array_append_new(list, file);
}

static void count_file(const struct wcx_walk *entry, const char *root, struct totals *totals, json_t *list)
{
	char *text = read_attribute(entry->path, packed_bytes_attribute);
	const uint64_t bytes = (uint64_t)entry->st.st_size, packed_bytes = text ? strtoull(text, NULL, 10) : 0;
	const char *path = entry->path + strlen(root);

	if (text) {
		totals->packed_files++;
		totals->packed_bytes += packed_bytes;
		totals->original_bytes += bytes;
		if (list)
			add_file(list, entry, path + strspn(path, "/"), packed_bytes);
	} else if (errno == EACCES) {
		totals->unreadable_files++;
	} else {
		totals->plain_files++;
		totals->plain_bytes += bytes;
	}
	free(text);
}

/* The absolute form of a path.  That of a dead mount cannot be found out by asking; as given, it may be right. */
static char *absolute_path(const char *path)
{
	char *absolute = realpath(path, NULL);

	return absolute || *path != '/' ? absolute : strdup(path);
}

static json_t *totals_object(const struct totals *totals)
{
	json_t *object = json_object();

	wcx_json_set_count(object, "packed", totals->packed_files);
	wcx_json_set_count(object, "plain", totals->plain_files);
	wcx_json_set_count(object, "unreadable", totals->unreadable_files);
	wcx_json_set_count(object, "original_bytes", totals->original_bytes);
	wcx_json_set_count(object, "packed_bytes", totals->packed_bytes);
	wcx_json_set_count(object, "plain_bytes", totals->plain_bytes);
	return object;
}

/* Counts the files below a path, of this mount alone, each once: links are not followed. */
static int count_files(const struct question *question, FILE *out)
{
	json_t *list = question->options->lists_files ? json_array() : NULL, *object = json_object();
	char *path = absolute_path(question->path);
	struct totals totals = { 0 };
	int status = WCX_EXIT_OK;
	uint64_t told_ms = 0;
	struct wcx_error err;
	struct wcx_walk walk;

	wcx_walk_begin(&walk, path ? path : question->path, WCX_WALK_ONE_DEVICE);
	while (!wcx_command_stop && wcx_walk_next(&walk)) {
		if (wcx_now_ms() - told_ms >= SIGN_OF_LIFE_MS) {
			fputc(' ', out);
			fflush(out);
			told_ms = wcx_now_ms();
		}
		if (walk.kind == WCX_WALK_FILE)
			count_file(&walk, path ? path : question->path, &totals, list);
		if (walk.kind != WCX_WALK_PROBLEM)
			continue;
		wcx_fail(&err, walk.errnum, "%s: %s", walk.path, strerror(walk.errnum));
		status = wcx_command_failed(question->command, &err);
	}
	wcx_walk_end(&walk);
	json_object_set_new(object, "files", totals_object(&totals));
	if (list)
		json_object_set_new(object, "file_list", list);
	json_dumpf(object, out, 0);
	return status;
}

/* --- mounts --- */

/* The topmost mount of wcxfs that holds a path: where it is mounted, and its store.  Asks the mount for nothing. */
static bool find_mount(const char *path, char **mountpoint_ret, char **store_ret)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	const struct mntent *entry;
	size_t best = 0;

	*mountpoint_ret = *store_ret = NULL;
	while (mounts && (entry = getmntent(mounts))) {
		const size_t bytes = strlen(entry->mnt_dir);

		if (!wcx_path_is_in(path, entry->mnt_dir) || bytes < best)
			continue;
		best = bytes;
		free(*mountpoint_ret);
		free(*store_ret);
		*mountpoint_ret = *store_ret = NULL;
		if (strcmp(entry->mnt_type, "fuse.wcxfs") == 0) {
			*mountpoint_ret = strdup(entry->mnt_dir);
			*store_ret = strdup(entry->mnt_fsname);
		}
	}
	if (mounts)
		endmntent(mounts);
	return *mountpoint_ret && *store_ret;
}

/*
 * Prints what is known of the mount that holds a path: only where it is and that it is not up, if its daemon is dead.
 */
static int tell_mount(const struct question *question, FILE *out)
{
	char *path = absolute_path(question->path), *mountpoint, *store;
	int status = WCX_EXIT_OK;
	struct wcx_error err;
	json_t *object;

	if (!path) {
		wcx_fail(&err, errno, "%s: %s", question->path, strerror(errno));
		return wcx_command_failed(question->command, &err);
	}
	if (!find_mount(path, &mountpoint, &store)) {
		wcx_fail(&err, ENODEV, "%s: not in a mount of wcxfs", question->path);
		return wcx_command_failed(question->command, &err);
	}
	object = read_object(mountpoint);
	if (!object) {
		const bool is_old = errno == ENODATA;

		wcx_fail(&err, errno, "%s: %s", mountpoint,
			 is_old ? "its daemon is older and tells no status" : strerror(errno));
		status = wcx_command_failed(question->command, &err);
		object = is_old ? json_object() : NULL;
	}
	json_dumpf(wcx_status_object(object, mountpoint, store), out, 0);
	return status;
}

/* Tells that a mount does not answer. */
static void fail_late(const struct question *question, const char *doing)
{
	struct wcx_error err;

	wcx_fail(&err, ETIMEDOUT, "%s: no answer within %d seconds%s", question->path, ANSWER_SECONDS, doing);
	wcx_command_failed(question->command, &err);
}

/* The mount that holds a path and does not answer, not even where the path leads; NULL if it is not known. */
static json_t *late_mount(const char *path)
{
	char *mountpoint, *store;
	json_t *object = find_mount(path, &mountpoint, &store) ? wcx_status_object(NULL, mountpoint, store) : NULL;

	free(mountpoint);
	free(store);
	return object;
}

/* Adds what is known of the mount that holds a path to a list. */
static int add_mount(struct command *command, char *path, const struct options *options, json_t *list)
{
	struct question question = { .command = command, .options = options, .path = path };
	json_t *object, *files = NULL;
	int status;

	object = ask(&question, tell_mount, &status);
	if (question.is_late) {
		fail_late(&question, "");
		object = late_mount(path);
	} else if (object && status == WCX_EXIT_OK && options->walks) {
		files = ask(&question, count_files, &status);
		if (question.is_late)
			fail_late(&question, " while its files were counted");
	}
	if (files)
		json_object_update(object, files);
	json_decref(files);
	if (object)
		json_array_append_new(list, object);
	return status;
}

/* Where stores are mounted.  A place with two mounts, as of a directory that is bound to itself, is listed once. */
struct places {
	char **paths;
	size_t count, capacity;
};

static void add_place(struct places *places, const char *path)
{
	char **grown = wcx_array_reserve(places->paths, &places->capacity, places->count + 1, sizeof *grown);

	if (!grown)
		return;
	places->paths = grown;
	for (size_t i = 0; i < places->count; i++)
		if (strcmp(grown[i], path) == 0)
			return;
	grown[places->count] = strdup(path);
	places->count += grown[places->count] != NULL;
}

static int add_all_mounts(struct command *command, const struct options *options, json_t *list)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	struct places places = { .count = 0 };
	const struct mntent *entry;
	int status = WCX_EXIT_OK;

	while (mounts && (entry = getmntent(mounts)))
		if (strcmp(entry->mnt_type, "fuse.wcxfs") == 0)
			add_place(&places, entry->mnt_dir);
	if (mounts)
		endmntent(mounts);
	for (size_t i = 0; i < places.count; i++) {
		if (!wcx_command_stop)
			status = wcx_command_worse(status, add_mount(command, places.paths[i], options, list));
		free(places.paths[i]);
	}
	free(places.paths);
	return status;
}

int wcx_command_status(struct command *command, int argc, char **argv)
{
	static const struct option long_options[] = { WCX_COMMAND_LONG_OPTIONS,
						      { "files", no_argument, NULL, 'F' },
						      { "no-walk", no_argument, NULL, 'W' },
						      { "json", no_argument, NULL, 'J' },
						      { "prometheus", no_argument, NULL, 'P' },
						      { 0 } };
	struct options options = { .walks = true };
	int option, status;
	json_t *list;

	while ((option = wcx_command_getopt(argc, argv, WCX_COMMAND_SHORT_OPTIONS, long_options)) != -1) {
		options.lists_files |= option == 'F';
		options.walks &= option != 'W';
		options.json |= option == 'J';
		options.prometheus |= option == 'P';
		if (!strchr("FWJP", option) && (status = wcx_command_option(command, option, help)) >= 0)
			return status;
	}
	if (options.json && options.prometheus)
		return wcx_command_usage(command, "--json and --prometheus exclude each other");
	if (options.lists_files && !options.walks)
		return wcx_command_usage(command, "--files and --no-walk exclude each other");
	wcx_command_catch_signals();
	list = json_array();
	status = optind == argc ? add_all_mounts(command, &options, list) : WCX_EXIT_OK;
	for (; optind < argc && !wcx_command_stop; optind++)
		status = wcx_command_worse(status, add_mount(command, argv[optind], &options, list));
	if (status == WCX_EXIT_OK && !json_array_size(list) && !options.json && !options.prometheus)
		fprintf(stderr, "wcx status: nothing is mounted with wcxfs\n");
	if (options.prometheus)
		wcx_status_print_prometheus(list);
	else if (options.json)
		wcx_status_print_json(list);
	else
		wcx_status_print_table(list);
	json_decref(list);
	return wcx_command_stop ? WCX_EXIT_FAILED : status;
}
