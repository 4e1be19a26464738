/* SPDX-License-Identifier: MIT */
/* Whether a thread of another process is about to die. */
#ifndef WCX_TASK_STATE_H
#define WCX_TASK_STATE_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * wcx_task_is_dying - whether a thread is exiting, or has been killed and exits as soon as the kernel lets it
 *
 * task is its number as /proc shows it to this process.  False for a thread that is not there or is hidden (hidepid).  Takes
 * some 40 us.  May wait while a process is torn down, so it is not for threads that others wait for.
 */
bool wcx_task_is_dying(pid_t task);

#endif
