/* SPDX-License-Identifier: MIT */
/* Prints the tables of codec_rate. */
#include <stdio.h>
#include <string.h>

#include "tests/bench/codec_rate.h"
#include "tests/bench/measure.h"

/* Prints median, least and greatest; the values keep their order, that of the rounds. */
static void print_spread(const char *format, const double values[ROUNDS])
{
	double sorted[ROUNDS];
	struct measure_spread spread;

	memcpy(sorted, values, sizeof sorted);
	spread = measure_spread_of(sorted, ROUNDS);
	printf(format, spread.median, spread.min, spread.max);
}

static void print_rate(const double rate[ROUNDS])
{
	print_spread(" %.3f (%.3f–%.3f) |", rate);
}

/* Prints the ratio of two rates, computed in each round. */
static void print_times(const double rate[ROUNDS], const double other[ROUNDS])
{
	double times[ROUNDS];

	for (int round = 0; round < ROUNDS; round++)
		times[round] = rate[round] / other[round];
	print_spread(" %.2f (%.2f–%.2f) |", times);
}

static void print_sizes(const struct subject *subject, const struct tools *tools)
{
	const struct weight_set *set = subject->set;

	printf("| %s | %.1f | %.4f |", set->name, (double)set->bytes / (1 << 20),
	       (double)set->bytes / (double)set->packed_bytes);
	for (unsigned p = 0; p < PEER_COUNT; p++)
		if (peer_is_there(&tools->peers[p]))
			printf(" %.4f |", (double)set->bytes / (double)subject->blocks[p].packed_bytes);
	printf(" %.4f |\n", 8 * (double)set->bytes / set->limit_bits);
}

static void print_packing(const struct subject *subject)
{
	double all[ROUNDS];

	printf("| %s |", subject->set->name);
	for (int round = 0; round < ROUNDS; round++)
		all[round] = 1 / (1 / subject->rate[CHOOSE][round] + 1 / subject->rate[COUNT][round] +
				  1 / subject->rate[ENCODE][round]);
	for (int operation = CHOOSE; operation <= ENCODE; operation++)
		print_rate(subject->rate[operation]);
	print_rate(all);
	printf("\n");
}

static void print_decoding(const struct subject *subject, const struct tools *tools)
{
	const double *ours = NULL;

	printf("| %s |", subject->set->name);
	for (unsigned v = 0; v < tools->variant_count; v++) {
		print_rate(subject->rate[DECODE + v]);
		if (tools->variants[v] == tools->best)
			ours = subject->rate[DECODE + v];
	}
	for (unsigned p = 0; p < PEER_COUNT; p++)
		if (peer_is_there(&tools->peers[p]))
			print_rate(subject->rate[peer_operation(tools, p)]);
	print_rate(subject->rate[COPY]);
	for (unsigned p = 0; p < PEER_COUNT; p++)
		if (peer_is_there(&tools->peers[p]))
			print_times(ours, subject->rate[peer_operation(tools, p)]);
	printf("\n");
}

/* Prints the rate of a crew as a share of linear: that of one thread times the number of threads. */
static void print_linear(const double rate[CREWS_MAX][ROUNDS], unsigned crew)
{
	double linear[ROUNDS];

	for (int round = 0; round < ROUNDS; round++)
		linear[round] = decode_crew_threads(crew) * rate[0][round];
	print_times(rate[crew], linear);
}

/* Prints the rate of each crew and its share of linear; below, that share for plain arithmetic. */
static void print_crews(const struct subject *subject)
{
	printf("| %s |", subject->set->name);
	for (unsigned i = 0; decode_crew_threads(i); i++) {
		print_rate(subject->crew_rate[i]);
		if (i > 0)
			print_linear(subject->crew_rate, i);
		print_rate(subject->crew_cost[i]);
	}
	printf("\n| plain arithmetic | | |");
	for (unsigned i = 1; decode_crew_threads(i); i++) {
		printf(" |");
		print_linear(subject->machine_rate, i);
		printf(" |");
	}
	printf("\n");
}

/* Prints the names of columns, which end with NULL, as the heading of a table. */
static void print_heading(const char *const columns[])
{
	unsigned column_count = 0;

	for (; columns[column_count]; column_count++)
		printf("%s %s |", column_count ? "" : "|", columns[column_count]);
	printf("\n|");
	while (column_count-- > 0)
		printf("---|");
	printf("\n");
}

/* Appends the names of the available peers, each prefixed with text, to columns; storage holds the strings. */
static unsigned name_peers(const struct tools *tools, const char *text, char storage[PEER_COUNT][64], const char *columns[])
{
	unsigned named = 0;

	for (unsigned p = 0; p < PEER_COUNT; p++) {
		if (!peer_is_there(&tools->peers[p]))
			continue;
		snprintf(storage[p], sizeof storage[p], "%s%s", text, tools->peers[p].name);
		columns[named++] = storage[p];
	}
	return named;
}

static void print_sizes_heading(const struct tools *tools)
{
	const char *columns[4 + PEER_COUNT + 1] = { "data", "MiB", "wcx" };
	char names[PEER_COUNT][64];
	unsigned at = 3 + name_peers(tools, "", names, columns + 3);

	columns[at] = "order-0 limit";
	printf("Ratios; peers in blocks of 64 KiB.\n\n");
	print_heading(columns);
}

static void print_decoding_heading(const struct tools *tools)
{
	const char *columns[2 + VARIANTS_MAX + 2 * PEER_COUNT + 1] = { "data" };
	char names[PEER_COUNT][64], times[PEER_COUNT][64], text[64];
	unsigned at = 1;

	for (unsigned v = 0; v < tools->variant_count; v++)
		columns[at++] = tools->variants[v]->name;
	at += name_peers(tools, "", names, columns + at);
	columns[at++] = "memcpy";
	snprintf(text, sizeof text, "%s : ", tools->best->name);
	name_peers(tools, text, times, columns + at);
	printf("\nDecoding; %s is chosen for this CPU.\n\n", tools->best->name);
	print_heading(columns);
}

static void print_crews_heading(const struct tools *tools)
{
	const char *columns[1 + 3 * CREWS_MAX + 1] = { "data" };
	char names[CREWS_MAX][32];
	unsigned at = 1;

	for (unsigned i = 0; decode_crew_threads(i); i++) {
		snprintf(names[i], sizeof names[i], "%u thread%s", decode_crew_threads(i),
			 decode_crew_threads(i) > 1 ? "s" : "");
		columns[at++] = names[i];
		if (i > 0)
			columns[at++] = "of linear";
		columns[at++] = "CPU s/GB";
	}
	printf("\nChecking and decoding with %s on several cores.\n\n", tools->best->name);
	print_heading(columns);
}

void codec_rate_print(const struct subject *subjects, size_t subject_count, const struct tools *tools)
{
	static const char *const packing[] = { "data", "choose", "count", "encode", "all three", NULL };

	printf("GB/s of decoded bytes, on one core, by CPU time, unless noted: median of %d rounds (slowest–fastest); "
	       "all verified.\n\n",
	       ROUNDS);
	print_sizes_heading(tools);
	for (size_t s = 0; s < subject_count; s++)
		print_sizes(&subjects[s], tools);
	printf("\nPacking.\n\n");
	print_heading(packing);
	for (size_t s = 0; s < subject_count; s++)
		print_packing(&subjects[s]);
	print_decoding_heading(tools);
	for (size_t s = 0; s < subject_count; s++)
		print_decoding(&subjects[s], tools);
	print_crews_heading(tools);
	for (size_t s = 0; s < subject_count; s++)
		print_crews(&subjects[s]);
}
