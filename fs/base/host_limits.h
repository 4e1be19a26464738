/* SPDX-License-Identifier: MIT */
/*
 * What this process may use of the machine: the smallest of what the machine has and what affinity and control groups allow.
 *
 * Control groups of both versions count, at all levels that this process can see.  Reads files of /proc and /sys, which
 * takes less than a millisecond; the answer may change while the process runs.  Safe from any number of threads.
 *
 * Source: Linux, Documentation/admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst and scheduler/sched-bwc.rst.
 */
#ifndef WCX_HOST_LIMITS_H
#define WCX_HOST_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

struct wcx_host_limits {
	uint64_t memory_bytes;
	unsigned cores;         /* at least 1; part of a core counts as one */
	bool is_memory_limited; /* by a control group, to less than the machine has */
	bool is_cpu_limited;    /* by affinity or a quota, to fewer cores than the machine has */
};

/* wcx_host_limits_get - look; what cannot be read limits nothing */
void wcx_host_limits_get(struct wcx_host_limits *ret);

/*
 * wcx_host_limits_apply_cgroups - lower limits by the control groups that files below root tell of
 *
 * root is "" for the machine's own /proc and /sys, or a directory with copies of such files.
 */
void wcx_host_limits_apply_cgroups(const char *root, struct wcx_host_limits *limits);

/* wcx_host_raise_fd_limit - raise the limit of open files to the maximum: for a process that has one open for each of many
 */
void wcx_host_raise_fd_limit(void);

#endif
