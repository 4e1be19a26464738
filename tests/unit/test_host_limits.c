/* SPDX-License-Identifier: MIT */
/* What control groups and affinity leave of a machine, told by copies of the kernel's files. */
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/host_limits.h"
#include "tests/unit/check.h"

#define GIB (UINT64_C(1) << 30)
#define V2_MOUNT "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1_MEMORY "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
#define V1_CPU "32 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"

static char root[] = "/tmp/wcx-limits-XXXXXX";

/* Writes a file below root, with the directories that lead there. */
static void write_file(const char *path, const char *text)
{
	char full[512];
	FILE *file;

	snprintf(full, sizeof full, "%s%s", root, path);
	for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; *slash++ = '/') {
		*slash = '\0';
		mkdir(full, 0700);
	}
	file = fopen(full, "w");
	CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

struct file {
	const char *path, *text;
};

static const struct {
	const char *what;
	struct file files[8];
	uint64_t memory_bytes; /* 0: as before */
	unsigned cores;
} cases[] = {
	{ "no files at all", { { 0 } }, 0, 0 },
	{ "version 2 without limits",
	  { { "/proc/self/mountinfo", V2_MOUNT },
	    { "/proc/self/cgroup", "0::/a\n" },
	    { "/sys/fs/cgroup/a/memory.max", "max\n" },
	    { "/sys/fs/cgroup/a/cpu.max", "max 100000\n" } },
	  0,
	  0 },
	{ "version 2, limits at the group",
	  { { "/proc/self/mountinfo", V2_MOUNT },
	    { "/proc/self/cgroup", "0::/a/b\n" },
	    { "/sys/fs/cgroup/a/b/memory.max", "536870912\n" },
	    { "/sys/fs/cgroup/a/b/cpu.max", "250000 100000\n" } },
	  GIB / 2,
	  3 },
	{ "version 2, limits above the group and in a container's root",
	  { { "/proc/self/mountinfo", V2_MOUNT },
	    { "/proc/self/cgroup", "0::/a/b\n" },
	    { "/sys/fs/cgroup/a/b/memory.max", "max\n" },
	    { "/sys/fs/cgroup/a/memory.max", "1073741824\n" },
	    { "/sys/fs/cgroup/cpu.max", "10000 100000\n" } },
	  GIB,
	  1 },
	{ "version 2, throttled before it is killed",
	  { { "/proc/self/mountinfo", V2_MOUNT },
	    { "/proc/self/cgroup", "0::/\n" },
	    { "/sys/fs/cgroup/memory.max", "1073741824\n" },
	    { "/sys/fs/cgroup/memory.high", "268435456\n" } },
	  GIB / 4,
	  0 },
	{ "version 1, a hierarchy for each",
	  { { "/proc/self/mountinfo", V1_MEMORY V1_CPU },
	    { "/proc/self/cgroup", "5:memory:/x/y\n4:cpu,cpuacct:/x\n1:name=systemd:/\n" },
	    { "/sys/fs/cgroup/memory/x/y/memory.limit_in_bytes", "9223372036854771712\n" },
	    { "/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "268435456\n" },
	    { "/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "150000\n" },
	    { "/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n" } },
	  GIB / 4,
	  2 },
	{ "version 1, no quota",
	  { { "/proc/self/mountinfo", V1_CPU },
	    { "/proc/self/cgroup", "4:cpu,cpuacct:/x\n" },
	    { "/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "-1\n" },
	    { "/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n" } },
	  0,
	  0 },
	{ "version 1 in a container that sees its own group mounted and its host's path",
	  { { "/proc/self/mountinfo", "31 23 0:27 /docker/1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" },
	    { "/proc/self/cgroup", "5:memory:/docker/1\n" },
	    { "/sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n" } },
	  GIB / 8,
	  0 },
	{ "a path that does not lie below what is mounted",
	  { { "/proc/self/mountinfo", "31 23 0:27 /docker/1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" },
	    { "/proc/self/cgroup", "5:memory:/docker/12/z\n" },
	    { "/sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n" } },
	  GIB / 8,
	  0 },
	{ "more than the machine has",
	  { { "/proc/self/mountinfo", V2_MOUNT },
	    { "/proc/self/cgroup", "0::/\n" },
	    { "/sys/fs/cgroup/memory.max", "1099511627776\n" },
	    { "/sys/fs/cgroup/cpu.max", "6400000 100000\n" } },
	  0,
	  0 },
};

static void the_smallest_limit_of_all_levels_counts(void)
{
	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++) {
		struct wcx_host_limits limits = { .memory_bytes = 64 * GIB, .cores = 16 };
		char command[64];

		if (!CHECK(mkdtemp(strcpy(root, "/tmp/wcx-limits-XXXXXX"))))
			return;
		for (const struct file *file = cases[i].files; file->path; file++)
			write_file(file->path, file->text);
		wcx_host_limits_apply_cgroups(root, &limits);
		if (!CHECK(limits.memory_bytes == (cases[i].memory_bytes ? cases[i].memory_bytes : 64 * GIB)) ||
		    !CHECK(limits.cores == (cases[i].cores ? cases[i].cores : 16)))
			fprintf(stderr, "\t%s\n", cases[i].what);
		CHECK(limits.is_memory_limited == (cases[i].memory_bytes != 0));
		CHECK(limits.is_cpu_limited == (cases[i].cores != 0));
		snprintf(command, sizeof command, "rm -r '%s'", root);
		CHECK(system(command) == 0);
	}
}

static void affinity_limits_cores(void)
{
	struct wcx_host_limits before, after;
	cpu_set_t all, one;
	size_t cpu = 0;

	wcx_host_limits_get(&before);
	CHECK(before.cores >= 1 && before.memory_bytes > 0);
	if (!CHECK(sched_getaffinity(0, sizeof all, &all) == 0))
		return;
	while (!CPU_ISSET(cpu, &all))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
	wcx_host_limits_get(&after);
	CHECK(after.cores == 1 && after.memory_bytes == before.memory_bytes);
	CHECK(sched_setaffinity(0, sizeof all, &all) == 0);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(the_smallest_limit_of_all_levels_counts),
		CHECK_TEST(affinity_limits_cores),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
