/* SPDX-License-Identifier: MIT */
/* Shares of the threads for users and files, and turns in the queue. */
#include "fs/mount/shares.h"

#include "codec/arith.h"

/* Requests under way, and how many of them are stuck. */
struct tally {
	unsigned all, all_stuck, user, user_stuck, file, file_stuck;
};

void wcx_shares_init(struct wcx_shares *shares, unsigned threads)
{
	const unsigned all_max = WCX_MIN(threads - 1, (unsigned)WCX_SHARES_MAX);

	*shares = (struct wcx_shares){
		.all_max = all_max,
		.user_max = WCX_MIN(threads * 3 / 4, all_max - 1),
		.file_max = threads / 2,
	};
}

/* At most WCX_SHARES_MAX comparisons: cheaper than counters by user and file, whose number has no limit. */
static struct tally count_for(const struct wcx_shares *shares, const struct wcx_ticket *ticket)
{
	struct tally tally = { .all = shares->count };

	for (unsigned i = 0; i < shares->count; i++) {
		const struct wcx_ticket *other = shares->under_way[i];
		const bool same_user = other->user == ticket->user;
		const bool same_file = ticket->file && other->file == ticket->file;

		tally.all_stuck += other->is_stuck;
		tally.user += same_user;
		tally.user_stuck += same_user && other->is_stuck;
		tally.file += same_file;
		tally.file_stuck += same_file && other->is_stuck;
	}
	return tally;
}

static enum wcx_share judge(const struct wcx_shares *shares, const struct tally *tally)
{
	if (tally->all_stuck >= shares->all_max || tally->user_stuck >= shares->user_max || tally->file_stuck)
		return WCX_SHARE_REFUSE;
	if (tally->all >= shares->all_max || tally->user >= shares->user_max || tally->file >= shares->file_max)
		return WCX_SHARE_WAIT;
	return WCX_SHARE_SERVE;
}

static void begin(struct wcx_shares *shares, struct wcx_ticket *ticket)
{
	ticket->is_stuck = false;
	ticket->place = shares->count;
	shares->under_way[shares->count++] = ticket;
}

static bool is_of_group(const struct wcx_ticket *ticket, const struct wcx_ticket *first)
{
	return ticket->user == first->user && ticket->file == first->file;
}

static void append_group(struct wcx_shares *shares, struct wcx_ticket *first)
{
	struct wcx_ticket **at = &shares->groups;

	while (*at)
		at = &(*at)->next_group;
	*at = first;
	first->next_group = NULL;
}

static void enqueue(struct wcx_shares *shares, struct wcx_ticket *ticket)
{
	struct wcx_ticket *first = shares->groups;

	ticket->next = NULL;
	while (first && !is_of_group(ticket, first))
		first = first->next_group;
	if (first) {
		first->last->next = ticket;
		first->last = ticket;
		return;
	}
	ticket->last = ticket;
	append_group(shares, ticket);
}

/* Takes the first of a group out.  The others keep its place in turn, or go behind all groups. */
static struct wcx_ticket *take_first(struct wcx_shares *shares, struct wcx_ticket **at, bool goes_behind)
{
	struct wcx_ticket *first = *at, *heir = first->next;

	*at = first->next_group;
	if (heir) {
		heir->last = first->last;
		heir->next_group = *at;
		if (goes_behind)
			append_group(shares, heir);
		else
			*at = heir;
	}
	return first;
}

enum wcx_share wcx_shares_arrive(struct wcx_shares *shares, struct wcx_ticket *ticket)
{
	const struct tally tally = count_for(shares, ticket);
	const enum wcx_share share = judge(shares, &tally);

	if (share == WCX_SHARE_SERVE)
		begin(shares, ticket);
	else if (share == WCX_SHARE_WAIT)
		enqueue(shares, ticket);
	return share;
}

struct wcx_ticket *wcx_shares_leave(struct wcx_shares *shares, struct wcx_ticket *ticket)
{
	struct wcx_ticket **best = NULL, *next, *moved = shares->under_way[--shares->count];
	struct tally fewest = { 0 };

	shares->under_way[ticket->place] = moved;
	moved->place = ticket->place;
	for (struct wcx_ticket **at = &shares->groups; *at; at = &(*at)->next_group) {
		const struct tally tally = count_for(shares, *at);

		if (judge(shares, &tally) == WCX_SHARE_SERVE &&
		    (!best || tally.user < fewest.user || (tally.user == fewest.user && tally.file < fewest.file))) {
			best = at;
			fewest = tally;
		}
	}
	if (!best)
		return NULL;
	next = take_first(shares, best, true);
	begin(shares, next);
	return next;
}

void wcx_shares_withdraw(struct wcx_shares *shares, struct wcx_ticket *ticket)
{
	struct wcx_ticket **at = &shares->groups, *before;

	while (!is_of_group(ticket, *at))
		at = &(*at)->next_group;
	before = *at;
	if (before == ticket) {
		take_first(shares, at, false);
		return;
	}
	while (before->next != ticket)
		before = before->next;
	before->next = ticket->next;
	if (!before->next)
		(*at)->last = before;
}

struct wcx_ticket *wcx_shares_take_refused(struct wcx_shares *shares)
{
	for (struct wcx_ticket **at = &shares->groups; *at; at = &(*at)->next_group) {
		const struct tally tally = count_for(shares, *at);

		if (judge(shares, &tally) == WCX_SHARE_REFUSE)
			return take_first(shares, at, false);
	}
	return NULL;
}

struct wcx_ticket *wcx_shares_take_any(struct wcx_shares *shares)
{
	return shares->groups ? take_first(shares, &shares->groups, false) : NULL;
}
