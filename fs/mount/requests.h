/* SPDX-License-Identifier: MIT */
/*
 * Serves requests on the threads that receive them, within the shares of shares.h, and watches those that take long.
 *
 * A thread that has served a request serves what waits in the queue before it receives again; there are no other serving
 * threads.  Requests that take more than a tenth of a second are looked at ten times a second by a thread of its own, the
 * watcher, which answers for the serving thread
 *
 *	-EINTR      when the reader has been killed;
 *	-EIO        when the store has not answered for timeout_ms, and for requests that would only wait for such ones;
 *	-ENOTCONN   to what is in the queue when the session has ended.
 *
 * Hence who replies has to claim the request first.  The kernel's interrupts are no help: it sends them for signals that the
 * reader handles, too, for which reads of a file are not cut short, and none for asynchronous direct I/O, whose readers
 * cannot be killed until they have a reply.  So the watcher looks at the state of the readers itself.
 *
 * All functions are safe from any thread.
 */
#ifndef WCX_REQUESTS_H
#define WCX_REQUESTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "fs/mount/shares.h"

struct wcx_requests;

/* Embedded in what describes the request.  The caller sets task and the ticket's user and file; the rest is private. */
struct wcx_request {
	struct wcx_ticket ticket;
	pid_t task; /* the thread that waits for the reply, 0 if unknown */

	uint64_t since_ms; /* when it arrived; once under way, when it was last known to go on */
	bool is_queued, is_answered;
	unsigned refs;
	int r;
	TAILQ_ENTRY(wcx_request) all;
	STAILQ_ENTRY(wcx_request) checked;
};

/* What the requests are, told by functions that get `user' and a request.  Only serve may take time. */
struct wcx_request_calls {
	void (*serve)(void *user, struct wcx_request *request);       /* replies, if it can claim the request */
	void (*fail)(void *user, struct wcx_request *request, int r); /* replies -errno; has been claimed */
	void (*retain)(void *user, struct wcx_request *request);      /* keep what serve uses beyond the reply, until free */
	void (*free)(void *user, struct wcx_request *request);        /* it was answered and is not served any more */
	bool (*has_ended)(void *user);                                /* the session receives no more */
	void (*give_up)(void *user); /* it has ended long ago, and something still waits for the store */
};

struct wcx_request_options {
	unsigned threads;    /* that receive requests */
	unsigned timeout_ms; /* 0: never */
	const struct wcx_request_calls *calls;
	void *user;
};

/* wcx_requests_create - start to watch; NULL when memory or threads run out */
struct wcx_requests *wcx_requests_create(const struct wcx_request_options *options);
void wcx_requests_free(struct wcx_requests *requests); /* when no request is left; NULL is fine */

/*
 * wcx_requests_end - tell that the session has ended, whether has_ended says so or not
 *
 * What has not come to wcx_requests_free 10 seconds later, or after timeout_ms if that is less, is given up.
 */
void wcx_requests_end(struct wcx_requests *requests);

/* wcx_request_submit - serve a request, and then others that wait; or have another thread serve it later */
void wcx_request_submit(struct wcx_requests *requests, struct wcx_request *request);

/* wcx_request_claim - become the one who replies; false if that has been done */
bool wcx_request_claim(struct wcx_requests *requests, struct wcx_request *request);

/* wcx_request_should_stop - whether nobody waits any more; to be asked from time to time while a request is served */
bool wcx_request_should_stop(struct wcx_requests *requests, struct wcx_request *request);

#endif
