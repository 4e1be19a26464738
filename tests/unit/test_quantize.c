/* SPDX-License-Identifier: MIT */
/*
 * Quantising to INT8: the arithmetic against a plain implementation in doubles, which tensors are linear layers, and a
 * source that changes.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/cpu_features.h"
#include "fs/quantize/float_bits.h"
#include "fs/quantize/ignore_list.h"
#include "fs/quantize/int8_rows.h"
#include "fs/quantize/quantize.h"
#include "fs/quantize/shard.h"
#include "fs/quantize/tensor_role.h"
#include "tests/unit/check.h"

enum { COUNT = 4099 /* no multiple of any block or register */, TYPES = 3 };

static const struct wcx_int8_loops *loops; /* the tests of arithmetic run for each variant */
static uint32_t random_state = 1;

static uint32_t random_bits(void)
{
	random_state = random_state * 1664525 + 1013904223;
	return random_state >> 8 ^ random_state << 16;
}

/* The value of a half, by the definition of its fields. */
static double half_value(unsigned half)
{
	const int exponent = half >> 10 & 31, fraction = half & 1023;
	const double magnitude = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);

	return half & 0x8000 ? -magnitude : magnitude;
}

/* Rounds to a type with so many bits of mantissa and a smallest exponent, ties to even. */
static double round_plainly(enum wcx_float_type type, double value)
{
	static const int bits[TYPES] = { 11, 8, 24 }, least[TYPES] = { -24, -133, -149 };
	int exponent, unit;

	if (value == 0 || isinf(value))
		return value;
	frexp(value, &exponent);
	unit = exponent - bits[type] > least[type] ? exponent - bits[type] : least[type];
	return ldexp(nearbyint(ldexp(value, -unit)), unit);
}

static double plain_scale(struct wcx_int8_recipe recipe, double amax)
{
	static const double epsilon[TYPES] = { 0x1p-10, 0x1p-7, 0x1p-23 };
	double scale = round_plainly(WCX_FLOAT_F32, amax / 127.5);

	if (recipe.scales == WCX_FLOAT_F16 && scale > 65504)
		scale = 65504;
	scale = round_plainly(recipe.scales, scale);
	return scale == 0 ? epsilon[recipe.scales] : scale;
}

static int plain_value(struct wcx_int8_recipe recipe, float weight, float scale)
{
	double quotient = weight / scale; /* F32, as IEEE has it */

	if (recipe.weights == recipe.scales)
		quotient = round_plainly(recipe.weights, quotient);
	return (int)nearbyint(quotient < -128 ? -128 : quotient > 127 ? 127 : quotient);
}

static void halves_widen_exactly(void)
{
	static uint16_t halves[65536];
	static float floats[65536];

	for (unsigned i = 0; i < 65536; i++)
		halves[i] = (uint16_t)i;
	loops->widen(WCX_FLOAT_F16, halves, floats, 65536);
	for (unsigned i = 0; i < 65536; i++) {
		if ((i & 0x7C00) == 0x7C00) {
			CHECK((wcx_float_bits(floats[i]) & INT32_MAX) >= WCX_FLOAT_INFINITE_BITS);
			CHECK(!isnan(floats[i]) == !(i & 1023));
		} else {
			CHECK(floats[i] == half_value(i) && !signbit(floats[i]) == !(i & 0x8000));
		}
	}
}

static void bf16_and_f32_widen_exactly(void)
{
	const uint16_t bf16[] = { 0x3F80, 0xC2FF, 0x0001, 0x8000 };
	const float f32[] = { 1.5F, -0.0F };
	float floats[4];

	loops->widen(WCX_FLOAT_BF16, bf16, floats, 4);
	CHECK(floats[0] == 1 && floats[1] == -127.5F && floats[2] == 0x1p-133F && signbit(floats[3]));
	loops->widen(WCX_FLOAT_F32, f32, floats, 2);
	CHECK(memcmp(floats, f32, sizeof f32) == 0);
}

static void the_largest_magnitude_is_found_at_every_place(void)
{
	float values[67] = { 0 };

	CHECK(loops->max_bits(values, 0) == 0);
	for (size_t count = 1; count <= 67; count++) {
		for (size_t i = 0; i < count; i++) {
			values[i] = -3;
			CHECK(wcx_float_from_bits(loops->max_bits(values, count)) == 3);
			values[i] = i % 2 ? NAN : -INFINITY;
			CHECK(loops->max_bits(values, count) >= WCX_FLOAT_INFINITE_BITS);
			values[i] = 0;
		}
	}
}

/* Calls f with all combinations of types. */
static void for_all_recipes(void (*f)(struct wcx_int8_recipe recipe))
{
	for (int weights = 0; weights < TYPES; weights++)
		for (int scales = 0; scales < TYPES; scales++)
			f((struct wcx_int8_recipe){ (enum wcx_float_type)weights, (enum wcx_float_type)scales });
}

static void check_scales(struct wcx_int8_recipe recipe)
{
	const float largest = recipe.weights == WCX_FLOAT_F16 ? 65504 : 3.38e38F;
	uint8_t stored[4];
	float widened;

	for (unsigned i = 0; i < 20000; i++) {
		float amax = wcx_float_from_bits(random_bits() & INT32_MAX);

		if (!(amax < largest))
			amax = i % 2 ? largest : ldexpf((float)i, -24);
		if (i == 0)
			amax = 0;
		amax = (float)round_plainly(recipe.weights, amax);
		if (!CHECK(wcx_int8_scale(recipe, amax) == (float)plain_scale(recipe, amax)))
			return;
		wcx_int8_scale_write(recipe, wcx_int8_scale(recipe, amax), stored);
		loops->widen(recipe.scales, stored, &widened, 1);
		CHECK(widened == wcx_int8_scale(recipe, amax));
	}
}

static void scales_are_those_of_a_plain_implementation(void)
{
	for_all_recipes(check_scales);
}

static void check_row(struct wcx_int8_recipe recipe, const float *weights, size_t count)
{
	const float amax = wcx_float_from_bits(loops->max_bits(weights, count));
	const float scale = wcx_int8_scale(recipe, amax);
	struct wcx_int8_error error = { 0 }, plain = { 0 };
	static int8_t values[COUNT];

	loops->quantize(recipe, weights, scale, values, count, &error);
	for (size_t i = 0; i < count; i++) {
		const double change = weights[i] - (double)scale * values[i];

		if (values[i] != plain_value(recipe, weights[i], scale)) {
			CHECK(values[i] == plain_value(recipe, weights[i], scale));
			return;
		}
		plain.signal += (double)weights[i] * weights[i];
		plain.noise += change * change;
	}
	CHECK(fabs(error.signal - plain.signal) <= 1e-4 * plain.signal + 1e-300);
	CHECK(fabs(error.noise - plain.noise) <= 1e-3 * plain.noise + 1e-9 * plain.signal);
}

static void check_values(struct wcx_int8_recipe recipe)
{
	static const float spans[] = { 1, 1e-3F, 4e-8F, 3e4F };
	static float weights[COUNT];

	for (size_t span = 0; span < WCX_ARRAY_COUNT(spans); span++) {
		for (size_t i = 0; i < COUNT; i++)
			weights[i] = (float)round_plainly(recipe.weights,
							  spans[span] * ((double)(random_bits() % 20001) - 10000) / 10000);
		check_row(recipe, weights, COUNT);
	}
	for (size_t i = 0; i < COUNT; i++) /* ties between all integers, if the scale is 1 */
		weights[i] = (float)((double)(i % 511) - 255) / 2;
	check_row(recipe, weights, COUNT);
	for (size_t i = 0; i < COUNT; i++) /* 24 orders of magnitude, and -0 */
		weights[i] =
			(float)round_plainly(recipe.weights, (i % 2 ? -1.0 : 1.0) * ldexp(i % 7 ? 1.37 : 0, -(int)(i % 24)));
	for (size_t count = 1; count < 40; count++)
		check_row(recipe, weights, count);
}

static void values_are_those_of_a_plain_implementation(void)
{
	for_all_recipes(check_values);
}

static void the_largest_magnitude_becomes_127_or_minus_128(void)
{
	const struct wcx_int8_recipe recipe = { WCX_FLOAT_F32, WCX_FLOAT_F32 };
	const float weights[] = { -127.5F, 127.5F, 0.5F, 1.5F, -0.5F, -2.5F, 126.5F };
	const int8_t expected[] = { -128, 127, 0, 2, 0, -2, 126 };
	struct wcx_int8_error error = { 0 };
	int8_t values[7];

	CHECK(wcx_int8_scale(recipe, 127.5F) == 1);
	loops->quantize(recipe, weights, 1, values, 7, &error);
	CHECK(memcmp(values, expected, sizeof values) == 0);
	CHECK(fabs(error.noise - 7 * 0.25) < 1e-6);
}

static void squares_beyond_f32_do_not_spoil_the_error(void)
{
	const struct wcx_int8_recipe recipe = { WCX_FLOAT_F32, WCX_FLOAT_F16 };
	const float weights[] = { 3e38F, 1 };
	struct wcx_int8_error error = { 0 };
	int8_t values[2];

	loops->quantize(recipe, weights, wcx_int8_scale(recipe, 3e38F), values, 2, &error);
	CHECK(values[0] == 127 && values[1] == 0);
	CHECK(isfinite(error.signal) && isfinite(error.noise) && error.noise > 8e76);
}

static enum wcx_tensor_role role_of(const char *name, const char *dtype, size_t dim_count, uint64_t rows)
{
	const uint64_t shape[4] = { rows, 16, 3, 3 };
	const struct wcx_tensor tensor = {
		.name = name, .name_bytes = strlen(name), .dtype = dtype, .shape = shape, .dim_count = dim_count, .bytes = 64
	};

	return wcx_tensor_role(&tensor, 1000);
}

static void roles_follow_names_and_shapes(void)
{
	static const struct {
		const char *name, *dtype;
		size_t dim_count;
		uint64_t rows;
		enum wcx_tensor_role role;
	} cases[] = {
		{ "model.layers.0.self_attn.q_proj.weight", "BF16", 2, 64, WCX_ROLE_LINEAR },
		{ "model.layers.11.mlp.gate_proj.weight", "F16", 2, 64, WCX_ROLE_LINEAR },
		{ "encoder.layer.0.attention.self.query.weight", "F32", 2, 64, WCX_ROLE_LINEAR },
		{ "pooler.dense.weight", "F32", 2, 64, WCX_ROLE_LINEAR },
		{ "weight.weight", "F32", 2, 64, WCX_ROLE_LINEAR },
		{ "model.embed_tokens.weight", "BF16", 2, 1000, WCX_ROLE_EMBEDDING },
		{ "embeddings.position_embeddings.weight", "F32", 2, 64, WCX_ROLE_EMBEDDING },
		{ "transformer.wte.weight", "F32", 2, 64, WCX_ROLE_EMBEDDING },
		{ "shared.weight", "F32", 2, 64, WCX_ROLE_EMBEDDING },
		{ "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "F32", 2, 32, WCX_ROLE_EMBEDDING },
		{ "lm_head.weight", "BF16", 2, 999, WCX_ROLE_HEAD },
		{ "proj_out.weight", "BF16", 2, 1000, WCX_ROLE_HEAD },
		{ "model.layers.0.input_layernorm.weight", "BF16", 1, 64, WCX_ROLE_OTHER },
		{ "blocks.0.norm.weight", "BF16", 2, 64, WCX_ROLE_NORM },
		{ "encoder.layer.0.attention.self.query.bias", "F32", 1, 64, WCX_ROLE_OTHER },
		{ "vision.patch_embedding.weight", "F32", 4, 64, WCX_ROLE_OTHER },
		{ "model.layers.0.A_log", "F32", 2, 64, WCX_ROLE_OTHER },
		{ "position_ids.weight", "I64", 2, 64, WCX_ROLE_OTHER },
		{ "model.layers.0.mlp.gate.weight", "BF16", 2, 64, WCX_ROLE_ROUTER },
		{ "model.layers.0.mlp.experts.7.up_proj.weight", "BF16", 2, 64, WCX_ROLE_EXPERT },
		{ "model.layers.0.mlp.experts.gate_up_proj", "BF16", 3, 8, WCX_ROLE_EXPERT },
		{ "model.layers.0.mlp.shared_expert.up_proj.weight", "BF16", 2, 64, WCX_ROLE_LINEAR },
	};

	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++)
		if (!CHECK(role_of(cases[i].name, cases[i].dtype, cases[i].dim_count, cases[i].rows) == cases[i].role))
			fprintf(stderr, "\t%s\n", cases[i].name);
}

static void quantised_tensors_are_known_by_name_and_dtype(void)
{
	static const struct {
		const char *name, *dtype;
		bool is_quantized;
	} cases[] = {
		{ "a.weight", "I8", true },        { "a.weight", "F8_E4M3", true },   { "a.weight_packed", "I32", true },
		{ "a.qweight", "I32", true },      { "a.weight_scale", "F16", true }, { "a.scale", "F8_E8M0", true },
		{ "a.weight", "F16", false },      { "position_ids", "I64", false },  { "a.mask", "U8", false },
		{ "a.logit_scale", "F32", false },
	};

	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++) {
		const struct wcx_tensor tensor = { .name = cases[i].name,
						   .name_bytes = strlen(cases[i].name),
						   .dtype = cases[i].dtype };

		if (!CHECK(wcx_tensor_is_quantized(&tensor) == cases[i].is_quantized))
			fprintf(stderr, "\t%s\n", cases[i].name);
	}
}

static void layouts_follow_the_model_type(void)
{
	const char *head;

	CHECK(wcx_model_layout("llama", &head) == WCX_LAYOUT_LINEAR);
	CHECK_TEXT(head, "lm_head");
	CHECK(wcx_model_layout("bert", &head) == WCX_LAYOUT_LINEAR);
	CHECK_TEXT(head, "cls.predictions.decoder");
	CHECK(wcx_model_layout("gpt2", &head) == WCX_LAYOUT_CONV1D && !head);
	CHECK(wcx_model_layout("mixtral", &head) == WCX_LAYOUT_UNKNOWN && !head);
	CHECK(wcx_model_layout("", &head) == WCX_LAYOUT_UNKNOWN);
}

static bool has(struct wcx_ignore_list *list, const char *module)
{
	return wcx_ignore_list_has(list, module, strlen(module));
}

static void ignore_entries_match_as_in_python(void)
{
	const char *const entries[] = { "lm_head", "re:.*\\.layers\\.\\d+\\.mlp", "re:visual", "unused" };
	struct wcx_ignore_list *list = NULL;
	struct wcx_error err;
	size_t i = 0;

	if (!CHECK(wcx_ignore_list_create(entries, 4, &list, &err) == 0))
		return;
	CHECK(has(list, "lm_head") && !has(list, "lm_head.proj") && !has(list, "model.lm_head"));
	CHECK(has(list, "model.layers.12.mlp.up_proj") && !has(list, "model.layers.x.mlp"));
	CHECK(has(list, "visual.blocks.0") && !has(list, "model.visual"));
	CHECK_TEXT(wcx_ignore_list_unused(list, &i), "unused");
	CHECK(!wcx_ignore_list_unused(list, &i));
	wcx_ignore_list_free(list);
}

static void a_wrong_expression_is_shown_with_its_place(void)
{
	const char *const entries[] = { "re:layers.(0" };
	struct wcx_ignore_list *list = NULL;
	struct wcx_error err;

	CHECK(wcx_ignore_list_create(entries, 1, &list, &err) == -EINVAL && !list);
	CHECK(strstr(err.text, "re:layers.(0: ") == err.text && strstr(err.text, "character 9"));
}

static void write_file(const char *directory, const char *name, const char *text, size_t bytes)
{
	char path[96];
	int fd;

	snprintf(path, sizeof path, "%s/%s", directory, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0 && write(fd, text, bytes) == (ssize_t)bytes && close(fd) == 0);
}

/* As a training that goes on would, with the same size. */
static void rewrite(void *user, const struct wcx_shard *shard, const struct wcx_shard_tensor *tensor)
{
	const struct timespec times[2] = { { 0, UTIME_OMIT }, { 1000000000, 0 } };

	(void)user;
	(void)tensor;
	CHECK(utimensat(AT_FDCWD, shard->path, times, 0) == 0);
}

static void a_source_that_changes_is_told_of(void)
{
	static const char config[] = "{\"model_type\": \"llama\"}";
	static const char weights[] = "X\0\0\0\0\0\0\0{\"layers.0.mlp.up_proj.weight\":"
				      "{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[0,4]}}     \x80\x3f\0\x40";
	char parent[] = "/tmp/wcx-quantize-XXXXXX", target[64], command[128];
	struct wcx_quantize_options options = { .job.thread_count = 1 };
	struct wcx_quantize_result result;
	struct wcx_error err = { "" };

	if (!CHECK(mkdtemp(parent)))
		return;
	snprintf(target, sizeof target, "%s.int8", parent);
	snprintf(command, sizeof command, "rm -r %s %s", parent, target);
	write_file(parent, "config.json", config, sizeof config - 1);
	write_file(parent, "model.safetensors", weights, sizeof weights - 1);
	options.tensor = rewrite;
	CHECK(wcx_quantize(parent, target, &options, &result, &err) == -EBUSY);
	CHECK(strstr(err.text, "/model.safetensors: changed while the model was quantised"));
	CHECK(access(target, F_OK) < 0);
	options.tensor = NULL;
	CHECK(wcx_quantize(parent, target, &options, &result, &err) == 0 && result.linear_count == 1);
	CHECK(system(command) == 0);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(halves_widen_exactly),
		CHECK_TEST(bf16_and_f32_widen_exactly),
		CHECK_TEST(the_largest_magnitude_is_found_at_every_place),
		CHECK_TEST(scales_are_those_of_a_plain_implementation),
		CHECK_TEST(values_are_those_of_a_plain_implementation),
		CHECK_TEST(the_largest_magnitude_becomes_127_or_minus_128),
		CHECK_TEST(squares_beyond_f32_do_not_spoil_the_error),
		CHECK_TEST(roles_follow_names_and_shapes),
		CHECK_TEST(quantised_tensors_are_known_by_name_and_dtype),
		CHECK_TEST(layouts_follow_the_model_type),
		CHECK_TEST(ignore_entries_match_as_in_python),
		CHECK_TEST(a_wrong_expression_is_shown_with_its_place),
		CHECK_TEST(a_source_that_changes_is_told_of),
	};

	int status;

	loops = &wcx_int8_portable;
	status = check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
#ifdef __x86_64__
	if (status == 0 && wcx_cpu_has_avx2()) {
		loops = &wcx_int8_avx2;
		status = check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
	}
#endif
	return status;
}
