/* SPDX-License-Identifier: MIT */
/* Finds the known word that a mistyped one stands for, by its Damerau-Levenshtein distance. */
#include "fs/base/suggest.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "codec/arith.h"

enum { PREFIX_MIN_BYTES = 3 };

static int lower(char c)
{
	return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
}

/* The optimal string alignment distance: no letter is edited twice.  Both words are at most WCX_SUGGEST_WORD_BYTES long. */
static size_t distance(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
	uint8_t rows[3][WCX_SUGGEST_WORD_BYTES + 1];

	for (size_t j = 0; j <= b_bytes; j++)
		rows[0][j] = (uint8_t)j;
	for (size_t i = 1; i <= a_bytes; i++) {
		const uint8_t *before = rows[(i - 1) % 3], *two_before = rows[(i + 1) % 3];
		uint8_t *row = rows[i % 3];

		row[0] = (uint8_t)i;
		for (size_t j = 1; j <= b_bytes; j++) {
			const int x = lower(a[i - 1]), y = lower(b[j - 1]);
			int edits = before[j - 1] + (x != y);

			edits = WCX_MIN(edits, WCX_MIN(before[j], row[j - 1]) + 1);
			if (i > 1 && j > 1 && x == lower(b[j - 2]) && lower(a[i - 2]) == y)
				edits = WCX_MIN(edits, two_before[j - 2] + 1);
			row[j] = (uint8_t)edits;
		}
	}
	return rows[a_bytes % 3][b_bytes];
}

void wcx_suggest_more(struct wcx_suggestion *suggestion, const char *known)
{
	const size_t word_bytes = suggestion->word_bytes, known_bytes = strlen(known);
	const size_t most = WCX_MAX(known_bytes / 3, 1);
	size_t edits;

	if (word_bytes > WCX_SUGGEST_WORD_BYTES || known_bytes > WCX_SUGGEST_WORD_BYTES || !word_bytes)
		return;
	edits = distance(suggestion->word, word_bytes, known, known_bytes);
	if (edits > most && word_bytes >= PREFIX_MIN_BYTES && strncasecmp(suggestion->word, known, word_bytes) == 0)
		edits = most;
	if (edits > most || (suggestion->best && edits >= suggestion->best_distance))
		return;
	suggestion->best = known;
	suggestion->best_distance = edits;
}

const char *wcx_suggest(const char *word, const char *const *known, size_t count)
{
	struct wcx_suggestion suggestion = { .word = word, .word_bytes = strlen(word) };

	for (size_t i = 0; i < count; i++)
		wcx_suggest_more(&suggestion, known[i]);
	return suggestion.best;
}
