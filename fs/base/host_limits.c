/* SPDX-License-Identifier: MIT */
/* Finds out what affinity and control groups leave of the machine. */
#include "fs/base/host_limits.h"

#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "codec/arith.h"

/* A hierarchy of control groups as it is mounted here. */
struct hierarchy {
	char root[PATH_MAX];  /* the group that lies at the mount point */
	char mount[PATH_MAX]; /* the mount point */
};

/* Reads up to two numbers from a file; returns how many there are.  "max" is none. */
static int read_numbers(const char *root, const char *group, const char *name, uint64_t number[2])
{
	char path[3 * PATH_MAX];
	FILE *file;
	int count;

	snprintf(path, sizeof path, "%s%s/%s", root, group, name);
	file = fopen(path, "re");
	if (!file)
		return 0;
	count = fscanf(file, "%" SCNu64 " %" SCNu64, &number[0], &number[1]);
	fclose(file);
	return WCX_MAX(count, 0);
}

static void limit_memory(struct wcx_host_limits *limits, uint64_t bytes)
{
	if (bytes >= limits->memory_bytes)
		return;
	limits->memory_bytes = bytes;
	limits->is_memory_limited = true;
}

static void limit_cpu(struct wcx_host_limits *limits, uint64_t quota, uint64_t period)
{
	const uint64_t cores = period ? WCX_MAX(WCX_DIV_UP(quota, period), UINT64_C(1)) : UINT_MAX;

	if (cores >= limits->cores)
		return;
	limits->cores = (unsigned)cores;
	limits->is_cpu_limited = true;
}

static void apply_group_v2(const char *root, const char *group, struct wcx_host_limits *limits)
{
	uint64_t number[2];

	if (read_numbers(root, group, "memory.max", number) >= 1)
		limit_memory(limits, number[0]);
	if (read_numbers(root, group, "memory.high", number) >= 1)
		limit_memory(limits, number[0]);
	if (read_numbers(root, group, "cpu.max", number) == 2)
		limit_cpu(limits, number[0], number[1]);
}

/* Without a limit, the files say -1, or a number larger than any memory. */
static void apply_group_v1(const char *root, const char *group, struct wcx_host_limits *limits)
{
	uint64_t quota[2], period[2];

	if (read_numbers(root, group, "memory.limit_in_bytes", quota) >= 1)
		limit_memory(limits, quota[0]);
	if (read_numbers(root, group, "cpu.cfs_quota_us", quota) >= 1 && (int64_t)quota[0] > 0 &&
	    read_numbers(root, group, "cpu.cfs_period_us", period) >= 1)
		limit_cpu(limits, quota[0], period[0]);
}

/*
 * Goes from the group of this process up to the mount point.  A group that does not lie below what is mounted, as in a
 * container that sees the mount of its host's namespace, is taken for the one at the mount point.
 */
static void apply_levels(const char *root, const struct hierarchy *hierarchy, const char *group,
			 void (*apply)(const char *root, const char *group, struct wcx_host_limits *limits),
			 struct wcx_host_limits *limits)
{
	const size_t root_bytes = strcmp(hierarchy->root, "/") == 0 ? 0 : strlen(hierarchy->root);
	const bool is_below = strncmp(group, hierarchy->root, root_bytes) == 0 &&
			      (group[root_bytes] == '/' || group[root_bytes] == '\0') && !strstr(group, "/..");
	char path[2 * PATH_MAX];
	const size_t mount_bytes = (size_t)snprintf(path, sizeof path, "%s", hierarchy->mount);

	snprintf(path + mount_bytes, sizeof path - mount_bytes, "%s", is_below ? group + root_bytes : "");
	for (;;) {
		char *slash;

		apply(root, path, limits);
		slash = strrchr(path + mount_bytes, '/');
		if (!slash)
			break;
		*slash = '\0';
	}
}

/* Whether a word stands in a list with commas. */
static bool has_word(const char *list, const char *word)
{
	const size_t bytes = strlen(word);

	for (;;) {
		if (strncmp(list, word, bytes) == 0 && (list[bytes] == ',' || list[bytes] == '\0'))
			return true;
		list = strchr(list, ',');
		if (!list)
			return false;
		list++;
	}
}

/* What is looked for in the lines of a file: the hierarchy with a controller, NULL for that of version 2, and the group in
 * it. */
struct search {
	const char *controller;
	struct hierarchy hierarchy;
	char group[PATH_MAX];
};

/* A mount; see proc_pid_mountinfo(5). */
static bool match_mount(char *line, struct search *search)
{
	const char *kind = strstr(line, " - ");
	char type[32], options[1024];

	return kind && sscanf(line, "%*s %*s %*s %4095s %4095s", search->hierarchy.root, search->hierarchy.mount) == 2 &&
	       sscanf(kind, " - %31s %*s %1023s", type, options) == 2 &&
	       (search->controller ? strcmp(type, "cgroup") == 0 && has_word(options, search->controller)
				   : strcmp(type, "cgroup2") == 0);
}

/* The group of this process, ID:CONTROLLERS:PATH; see cgroups(7). */
static bool match_group(char *line, struct search *search)
{
	char *controllers = strchr(line, ':'), *name = controllers ? strchr(controllers + 1, ':') : NULL;

	if (!name)
		return false;
	*name++ = '\0';
	name[strcspn(name, "\n")] = '\0';
	snprintf(search->group, sizeof search->group, "%s", name);
	return search->controller ? has_word(controllers + 1, search->controller) : controllers[1] == '\0';
}

/* Whether a line of root/name matches: the first that does is in *search. */
static bool find_line(const char *root, const char *name, bool (*match)(char *line, struct search *search),
		      struct search *search)
{
	char path[PATH_MAX], *line = NULL;
	size_t capacity = 0;
	bool found = false;
	FILE *file;

	snprintf(path, sizeof path, "%s%s", root, name);
	file = fopen(path, "re");
	if (!file)
		return false;
	while (!found && getline(&line, &capacity, file) > 0)
		found = match(line, search);
	free(line);
	fclose(file);
	return found;
}

void wcx_host_limits_apply_cgroups(const char *root, struct wcx_host_limits *limits)
{
	static const char *const controllers[] = { NULL, "memory", "cpu" };

	for (size_t i = 0; i < WCX_ARRAY_COUNT(controllers); i++) {
		struct search search = { .controller = controllers[i] };

		if (find_line(root, "/proc/self/mountinfo", match_mount, &search) &&
		    find_line(root, "/proc/self/cgroup", match_group, &search))
			apply_levels(root, &search.hierarchy, search.group, controllers[i] ? apply_group_v1 : apply_group_v2,
				     limits);
	}
}

void wcx_host_limits_get(struct wcx_host_limits *ret)
{
	const long cores = sysconf(_SC_NPROCESSORS_ONLN), pages = sysconf(_SC_PHYS_PAGES);
	cpu_set_t set;

	*ret = (struct wcx_host_limits){
		.memory_bytes = pages > 0 ? (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) : UINT64_MAX,
		.cores = cores > 0 ? (unsigned)cores : 1,
	};
	/* Fails on machines of more than 1024 cores, where it says nothing. */
	if (sched_getaffinity(0, sizeof set, &set) == 0)
		limit_cpu(ret, (uint64_t)CPU_COUNT(&set), 1);
	wcx_host_limits_apply_cgroups("", ret);
}

void wcx_host_raise_fd_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}
