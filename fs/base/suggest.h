/* SPDX-License-Identifier: MIT */
/* Finds the known word that a mistyped one stands for. */
#ifndef WCX_SUGGEST_H
#define WCX_SUGGEST_H

#include <stddef.h>

enum { WCX_SUGGEST_WORD_BYTES = 64 }; /* longer words are like no other */

/* A choice of words, for wcx_suggest_more; zeroed at first but for word. */
struct wcx_suggestion {
	const char *word; /* that was typed */
	size_t word_bytes;
	const char *best; /* NULL: nothing is like it */
	size_t best_distance;
};

/*
 * wcx_suggest_more - consider one more known word
 *
 * The distance of two words is the number of letters to insert, remove, replace or swap with a neighbour; case does not
 * count.  A word is a suggestion if a third of its letters, at least one, is not exceeded, or if the typed word is the start
 * of it and has three letters or more.  Of equally near words the first stays.
 */
void wcx_suggest_more(struct wcx_suggestion *suggestion, const char *known);

/* wcx_suggest - the word of a list that is meant by word, or NULL */
const char *wcx_suggest(const char *word, const char *const *known, size_t count);

#endif
