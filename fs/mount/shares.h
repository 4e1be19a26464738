/* SPDX-License-Identifier: MIT */
/*
 * Decides which request is served next, so that no one file, nor one user's requests, takes all threads.
 *
 * Pure policy: no function here blocks, allocates or takes a lock.  The caller serialises all calls for one struct.
 *
 * A request that arrives is served by the thread that received it, unless its user or its file has its share of threads
 * already, or too few are left to receive more.  Then it waits in a queue, and a thread that has served a request takes the
 * next one from there: of the user with the fewest requests under way; then of the file with the fewest; then of whoever was
 * served longest ago.  Requests of one user for one file are served in the order of their arrival.
 *
 * A request under way is stuck once it has taken too long: it was answered with an error, but its thread still waits for the
 * store.  What would wait for stuck requests alone is refused instead.
 */
#ifndef WCX_SHARES_H
#define WCX_SHARES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { WCX_SHARES_MAX = 128 }; /* requests under way */

/* A request.  The caller sets user and file; 0 is no file.  The rest is private. */
struct wcx_ticket {
	uid_t user;
	uint64_t file;
	bool is_stuck;
	size_t place;                  /* among those under way */
	struct wcx_ticket *next;       /* the one queued behind it, of the same user and file */
	struct wcx_ticket *last;       /* of the first of a group: the last one */
	struct wcx_ticket *next_group; /* of the first of a group: the first of the next */
};

struct wcx_shares {
	unsigned all_max, user_max, file_max; /* requests under way: of all, of one user, for one file */
	unsigned count;
	struct wcx_ticket *under_way[WCX_SHARES_MAX];
	struct wcx_ticket *groups; /* queued requests by user and file, in the order of their turns */
};

enum wcx_share {
	WCX_SHARE_SERVE, /* is under way now */
	WCX_SHARE_WAIT,  /* is queued now */
	WCX_SHARE_REFUSE,
};

/* wcx_shares_init - for so many threads, 4 to 129, of which one always receives */
void wcx_shares_init(struct wcx_shares *shares, unsigned threads);

enum wcx_share wcx_shares_arrive(struct wcx_shares *shares, struct wcx_ticket *ticket);

/*
 * wcx_shares_leave - end a request under way
 *
 * Returns the request that the thread serves next, which is under way now; NULL if none may be served.  Another one that
 * may be served as well waits for the next call.
 */
struct wcx_ticket *wcx_shares_leave(struct wcx_shares *shares, struct wcx_ticket *ticket);

/* wcx_shares_withdraw - take a request out of the queue */
void wcx_shares_withdraw(struct wcx_shares *shares, struct wcx_ticket *ticket);

/* wcx_shares_take_refused - take a request out of the queue that waits for stuck ones alone; NULL if there is none */
struct wcx_ticket *wcx_shares_take_refused(struct wcx_shares *shares);

/* wcx_shares_take_any - take any request out of the queue; NULL if it is empty */
struct wcx_ticket *wcx_shares_take_any(struct wcx_shares *shares);

#endif
