/* SPDX-License-Identifier: MIT */
/*
 * Measures the codec on the CPU, beside peers and memcpy: rates and compression ratios.
 *
 *	codec_rate [--for=speed] [--mib=N] [--without-zstd] [FILE.safetensors ...]
 *
 * Takes generated weights, N MiB of each kind (default 64), then the tensors of each file, one set for each dtype of at
 *least 1 MiB.  One core packs, and decodes with every variant that this CPU can run and with the peers; then one, two, four
 *and more threads decode with the variant that is chosen for this CPU.  Compares everything with the original before and
 *after timing.  Exits with status 1 if anything differs.
 */
#include "tests/bench/codec_rate.h"

#include <stdlib.h>
#include <string.h>

#include "tests/bench/measure.h"
#include "tests/bench/must.h"

/* --- operations --- */

/* A pass over a set; which is the index of the variant or peer. */
typedef void operation_fn(struct subject *subject, struct tools *tools, unsigned which);

/* The steps of the packer that need only the samples of a tensor. */
static void choose(struct subject *subject, struct tools *tools, unsigned which)
{
	(void)tools;
	(void)which;
	for (size_t i = 0; i < subject->set->tensor_count; i++) {
		struct wcx_tensor_plan plan;

		weight_set_draft(&plan, &subject->set->tensors[i], subject->set->base);
		wcx_tensor_plan_free(&plan);
	}
}

static void count(struct subject *subject, struct tools *tools, unsigned which)
{
	(void)which;
	for (size_t i = 0; i < subject->set->tile_count; i++) {
		const struct weight_tile *tile = &subject->set->tiles[i];

		if (wcx_tensor_plan_count(tile->plan, &tile->job.dims, tile->original, NULL, tools->encode,
					  &tools->counts) != WCX_OK)
			must_not(subject->set->name, "a tile was not counted");
	}
}

static void encode(struct subject *subject, struct tools *tools, unsigned which)
{
	(void)which;
	for (size_t i = 0; i < subject->set->tile_count; i++)
		weight_set_encode(subject->set, &subject->set->tiles[i], tools->encode);
}

static void copy(struct subject *subject, struct tools *tools, unsigned which)
{
	(void)tools;
	(void)which;
	for (size_t i = 0; i < subject->set->tile_count; i++) {
		const struct weight_tile *tile = &subject->set->tiles[i];

		memcpy(tile->job.dst, tile->original, tile->job.dst_bytes);
	}
}

static void decode(struct subject *subject, struct tools *tools, unsigned which)
{
	weight_set_decode(subject->set, 0, subject->set->tile_count, tools->decode[which]);
}

static void unpack(struct subject *subject, struct tools *tools, unsigned which)
{
	peer_blocks_unpack(&subject->blocks[which], &tools->peers[which]);
}

static void operate(unsigned operation, struct subject *subject, struct tools *tools)
{
	static operation_fn *const packing[] = { [CHOOSE] = choose, [COUNT] = count, [ENCODE] = encode, [COPY] = copy };

	if (operation < DECODE)
		packing[operation](subject, tools, 0);
	else if (operation < peer_operation(tools, 0))
		decode(subject, tools, operation - DECODE);
	else if (peer_is_there(&tools->peers[operation - peer_operation(tools, 0)]))
		unpack(subject, tools, operation - peer_operation(tools, 0));
}

/* Decodes with each variant and compares. */
static void verify_variants(struct subject *subject, struct tools *tools)
{
	for (unsigned v = 0; v < tools->variant_count; v++) {
		decode(subject, tools, v);
		weight_set_check(subject->set, tools->variants[v]->name);
	}
}

/* Packs with the codec and all peers, and checks that each decodes to the original. */
static void prepare(struct subject *subject, struct tools *tools)
{
	encode(subject, tools, 0);
	for (size_t i = 0; i < subject->set->tile_count; i++)
		subject->set->packed_bytes += subject->set->tiles[i].job.src_bytes;
	verify_variants(subject, tools);
	for (unsigned p = 0; p < PEER_COUNT; p++)
		if (peer_is_there(&tools->peers[p]))
			peer_blocks_pack(&subject->blocks[p], &tools->peers[p], subject->set);
}

/* After timing: checks the bytes decoded last, and decodes the tiles encoded last with each variant. */
static void verify_again(struct subject *subject, struct tools *tools)
{
	weight_set_check(subject->set, "threads");
	verify_variants(subject, tools);
	for (unsigned p = 0; p < PEER_COUNT; p++)
		if (peer_is_there(&tools->peers[p]))
			peer_blocks_check(&subject->blocks[p], &tools->peers[p]);
}

/* --- rounds --- */

/* Subjects and operations take turns, so that other load on the machine affects all of them. */
static void measure(struct subject *subjects, size_t subject_count, struct tools *tools)
{
	for (int round = 0; round < ROUNDS; round++)
		for (size_t s = 0; s < subject_count; s++) {
			struct subject *subject = &subjects[s];

			for (unsigned operation = 0; operation < operation_count(tools); operation++) {
				double start = measure_cpu_s();

				operate(operation, subject, tools);
				subject->rate[operation][round] =
					(double)subject->set->bytes / (measure_cpu_s() - start) * 1e-9;
			}
			for (unsigned i = 0; decode_crew_threads(i); i++) {
				const unsigned threads = decode_crew_threads(i);

				subject->crew_rate[i][round] =
					decode_crew_rate(subject->set, tools->best, threads, &subject->crew_cost[i][round]);
				subject->machine_rate[i][round] = decode_crew_rate(subject->set, NULL, threads, NULL);
			}
		}
}

/* --- the program --- */

static void tools_open(struct tools *tools, bool with_zstd)
{
	const struct wcx_decode_variant *cpu;

	tools->encode = wcx_encode_scratch_create();
	if (!tools->encode)
		must_not("memory", strerror(ENOMEM));
	for (; (cpu = wcx_decode_variant_at(tools->variant_count)); tools->variant_count++) {
		if (tools->variant_count == VARIANTS_MAX)
			must_not(cpu->name, "one variant too many");
		tools->variants[tools->variant_count] = cpu;
		tools->decode[tools->variant_count] = wcx_decode_scratch_create(cpu);
		if (!tools->decode[tools->variant_count])
			must_not("memory", strerror(ENOMEM));
	}
	tools->best = wcx_decode_variant_choose();
	peers_open(tools->peers, with_zstd);
}

static void tools_close(struct tools *tools)
{
	wcx_encode_scratch_free(tools->encode);
	for (unsigned v = 0; v < tools->variant_count; v++)
		wcx_decode_scratch_free(tools->decode[v]);
	peers_close(tools->peers);
}

int main(int argc, char **argv)
{
	static struct tools tools;
	struct weight_sets sets = { 0 };
	struct subject *subjects;
	bool with_zstd = true;
	int first = 1;

	for (; first < argc && strncmp(argv[first], "--", 2) == 0; first++) {
		weight_sets_are_for_speed |= strcmp(argv[first], "--for=speed") == 0;
		with_zstd &= strcmp(argv[first], "--without-zstd") != 0;
		if (strncmp(argv[first], "--mib=", 6) == 0)
			weight_sets_generated_bytes = strtoull(argv[first] + 6, NULL, 10) << 20;
	}
	measure_print_origin(argc, argv);
	tools_open(&tools, with_zstd);
	weight_sets_generate(&sets);
	for (int i = first; i < argc; i++)
		weight_sets_add_file(&sets, argv[i]);
	subjects = must_alloc(sets.count * sizeof *subjects);
	for (size_t s = 0; s < sets.count; s++) {
		subjects[s] = (struct subject){ .set = &sets.sets[s] };
		prepare(&subjects[s], &tools);
	}
	measure(subjects, sets.count, &tools);
	for (size_t s = 0; s < sets.count; s++)
		verify_again(&subjects[s], &tools);
	codec_rate_print(subjects, sets.count, &tools);

	for (size_t s = 0; s < sets.count; s++)
		for (unsigned p = 0; p < PEER_COUNT; p++)
			peer_blocks_free(&subjects[s].blocks[p]);
	free(subjects);
	weight_sets_free(&sets);
	tools_close(&tools);
	return 0;
}
