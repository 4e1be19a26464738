/* SPDX-License-Identifier: MIT */
/* A process beside the daemon, with a pipe to it. */
#ifndef WCX_CHILD_H
#define WCX_CHILD_H

#include <stddef.h>
#include <sys/types.h>

struct wcx_child {
	pid_t pid; /* 0: none */
	int fd;    /* what is written here it reads */
};

/* What a child does, with the pipe's other end; it ends with the daemon if it asks for that before it looks for its parent.
 */
typedef void wcx_child_fn(void *user, int fd, pid_t parent);

/* wcx_child_fork - make the process, for before there are threads; it exits when the function returns.  0 or -errno. */
int wcx_child_fork(wcx_child_fn *run, void *user, struct wcx_child *ret);

/* wcx_child_tell - write to it, with SIGPIPE ignored; no child is fine.  Returns 0 or, where it is gone, -EPIPE. */
int wcx_child_tell(const struct wcx_child *child, const void *src, size_t bytes);

/* wcx_child_kill - send it a signal, and forget it; does not wait, and no child is fine */
void wcx_child_kill(struct wcx_child *child, int signal_number);

/* For the child itself: it is in no terminal's hands from now on, and neither reads nor writes there. */
void wcx_child_let_go_of_terminal(void);

#endif
