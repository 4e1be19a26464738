/* SPDX-License-Identifier: MIT */
/* A child process of the daemon, with a pipe from the daemon. */
#ifndef WCX_CHILD_H
#define WCX_CHILD_H

#include <stddef.h>
#include <sys/types.h>

struct wcx_child {
	pid_t pid; /* 0: no child */
	int fd;    /* the write end of the pipe */
};

/*
 * What the child does; fd is the read end of the pipe.  To die with the daemon, set PR_SET_PDEATHSIG first and then check
 * that parent is still the parent.
 */
typedef void wcx_child_fn(void *user, int fd, pid_t parent);

/* wcx_child_fork - fork, before there are threads; the child exits when run returns.  Returns 0 or -errno. */
int wcx_child_fork(wcx_child_fn *run, void *user, struct wcx_child *ret);

/* wcx_child_tell - write to the pipe, with SIGPIPE ignored.  Returns 0, also for no child, or -EPIPE if it is gone. */
int wcx_child_tell(const struct wcx_child *child, const void *src, size_t bytes);

/* wcx_child_kill - send a signal and forget the child, without waiting for it; no child is fine */
void wcx_child_kill(struct wcx_child *child, int signal_number);

#endif
