/* SPDX-License-Identifier: MIT */
/*
 * The parser of safetensors headers, on inputs with known results.  safetensors_agree.py compares it with the library on
 * many more.  Must be linked with --wrap for each function that has a __wrap_ here: these make allocations fail and count
 * calls.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/safetensors.h"
#include "tests/unit/check.h"

#define U8_ONE "\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]"

static long allocations_left = -1; /* the allocation after so many fails; negative: none does */
static unsigned long call_count;   /* of the functions wrapped here */
static size_t allocated_bytes;     /* in all, since this was set to 0 */

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
int __real_memcmp(const void *a, const void *b, size_t bytes);
int __wrap_memcmp(const void *a, const void *b, size_t bytes);

static bool allocation_fails(size_t bytes)
{
	call_count++;
	allocated_bytes += bytes;
	return allocations_left >= 0 && allocations_left-- == 0;
}

void *__wrap_malloc(size_t bytes)
{
	return allocation_fails(bytes) ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
	return allocation_fails(count * bytes) ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
	return allocation_fails(bytes) ? NULL : __real_realloc(old, bytes);
}

int __wrap_memcmp(const void *a, const void *b, size_t bytes)
{
	call_count++;
	return __real_memcmp(a, b, bytes);
}

/* Parses a copy of exactly the JSON's size, so that a sanitizer detects reads beyond it. */
static int parse(const char *json, size_t json_bytes, uint64_t data_bytes, struct wcx_safetensors **ret,
		 struct wcx_error *err)
{
	uint64_t file_bytes = WCX_SAFETENSORS_LENGTH_BYTES + json_bytes + data_bytes;
	char *copy = __real_malloc(json_bytes ? json_bytes : 1);
	int result;

	memcpy(copy, json, json_bytes);
	result = wcx_safetensors_parse("x", copy, json_bytes, file_bytes, ret, err);
	free(copy);
	return result;
}

static struct wcx_safetensors *accept(const char *json, uint64_t data_bytes)
{
	struct wcx_safetensors *st = NULL;
	struct wcx_error err = { "" };

	if (!CHECK(parse(json, strlen(json), data_bytes, &st, &err) == 0))
		fprintf(stderr, "\t%s\n", err.text);
	return st;
}

/* Only the beginning of the message is compared. */
static void check_refused_as(const char *kind, const char *json, size_t json_bytes)
{
	struct wcx_safetensors *st = NULL;
	struct wcx_error err = { "" };

	CHECK(parse(json, json_bytes, 1, &st, &err) == -EINVAL);
	err.text[strlen(kind) < strlen(err.text) ? strlen(kind) : 0] = '\0';
	CHECK_TEXT(err.text, kind);
	CHECK(st == NULL);
}

static void check_refused(const char *json, uint64_t data_bytes, const char *expected)
{
	struct wcx_safetensors *st = NULL;
	struct wcx_error err = { "" };

	CHECK(parse(json, strlen(json), data_bytes, &st, &err) == -EINVAL);
	CHECK_TEXT(err.text, expected);
	CHECK(st == NULL);
}

static void length_is_checked_before_anything_is_allocated(void)
{
	static const struct {
		uint8_t first[8];
		uint64_t file_bytes;
		const char *error; /* NULL: accepted */
		uint64_t json_bytes;
	} cases[] = {
		{ { 0 }, 0, "x: header too small", 0 },
		{ { 0 }, 7, "x: header too small", 0 },
		{ { 0 }, 8, NULL, 0 },
		{ { 2 }, 10, NULL, 2 },
		{ { 2 }, 9, "x: invalid header length", 0 },
		{ { 0x00, 0xE1, 0xF5, 0x05 }, 100000008, NULL, 100000000 },
		{ { 0x00, 0xE1, 0xF5, 0x05 }, 100000007, "x: invalid header length", 0 },
		{ { 0x01, 0xE1, 0xF5, 0x05 }, UINT64_MAX, "x: header too large", 0 },
		{ { 0, 0, 0, 0, 0, 0, 0, 0x80 }, UINT64_MAX, "x: header too large", 0 },
		{ { 255, 255, 255, 255, 255, 255, 255, 255 }, 8, "x: header too large", 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t json_bytes = 0;
		struct wcx_error err = { "" };
		int result = wcx_safetensors_json_bytes("x", cases[i].first, cases[i].file_bytes, &json_bytes, &err);

		CHECK(result == (cases[i].error ? -EINVAL : 0));
		CHECK(json_bytes == cases[i].json_bytes);
		CHECK_TEXT(err.text, cases[i].error ? cases[i].error : "");
	}
}

static void tensors_come_in_the_order_of_their_data(void)
{
	const char *json = " {\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
			   "\"__metadata__\":{\"k\":\"v\"},"
			   "\"empty\":{\"dtype\":\"I64\",\"shape\":[0,7],\"data_offsets\":[4,4]},"
			   "\"a\":{\"shape\":[],\"data_offsets\":[0,4],\"dtype\":\"F32\",\"new\":{}}}  ";
	struct wcx_safetensors *st = accept(json, 16);
	uint64_t data_at = 8 + strlen(json);

	if (!st || !CHECK(st->tensor_count == 3))
		return;
	CHECK(st->header_bytes == data_at && st->file_bytes == data_at + 16);
	CHECK_TEXT(st->tensors[0].name, "a");
	CHECK_TEXT(st->tensors[0].dtype, "F32");
	CHECK(st->tensors[0].dim_count == 0 && st->tensors[0].offset == data_at && st->tensors[0].bytes == 4);
	CHECK_TEXT(st->tensors[1].name, "empty");
	CHECK(st->tensors[1].dim_count == 2 && st->tensors[1].shape[0] == 0 && st->tensors[1].shape[1] == 7);
	CHECK(st->tensors[1].offset == data_at + 4 && st->tensors[1].bytes == 0);
	CHECK_TEXT(st->tensors[2].name, "b");
	CHECK(st->tensors[2].dim_count == 2 && st->tensors[2].shape[0] == 2 && st->tensors[2].shape[1] == 3);
	CHECK(st->tensors[2].offset == data_at + 4 && st->tensors[2].bytes == 12 && st->tensors[2].elem_bytes == 2);
	wcx_safetensors_free(st);
}

static void file_without_tensors_is_legal(void)
{
	struct wcx_safetensors *st = accept("{}", 0);

	CHECK(st && st->tensor_count == 0);
	wcx_safetensors_free(st);
}

static void dtypes_have_their_size_and_element(void)
{
	static const struct {
		const char *name;
		unsigned bytes_of_8; /* elements */
		unsigned elem_bytes;
	} cases[] = {
		{ "BOOL", 8, 1 }, { "F4", 4, 1 },      { "F6_E2M3", 6, 1 },     { "F6_E3M2", 6, 1 }, { "U8", 8, 1 },
		{ "I8", 8, 1 },   { "F8_E5M2", 8, 1 }, { "F8_E4M3", 8, 1 },     { "F8_E8M0", 8, 1 }, { "F8_E4M3FNUZ", 8, 1 },
		{ "I16", 16, 2 }, { "U16", 16, 2 },    { "F8_E5M2FNUZ", 8, 1 }, { "F16", 16, 2 },    { "BF16", 16, 2 },
		{ "I32", 32, 4 }, { "U32", 32, 4 },    { "F32", 32, 4 },        { "C64", 64, 4 },    { "F64", 64, 8 },
		{ "I64", 64, 8 }, { "U64", 64, 8 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char json[128];
		struct wcx_safetensors *st;

		snprintf(json, sizeof(json), "{\"a\":{\"dtype\":\"%s\",\"shape\":[8],\"data_offsets\":[0,%u]}}",
			 cases[i].name, cases[i].bytes_of_8);
		st = accept(json, cases[i].bytes_of_8);
		CHECK(st && st->tensors[0].elem_bytes == cases[i].elem_bytes);
		wcx_safetensors_free(st);
	}
}

static void unknown_dtype_is_a_row_of_bytes(void)
{
	struct wcx_safetensors *st = accept("{\"a\":{\"dtype\":\"F99\",\"shape\":[9,9],\"data_offsets\":[0,5]}}", 5);

	CHECK(st && st->tensors[0].elem_bytes == 1 && st->tensors[0].bytes == 5);
	wcx_safetensors_free(st);
	check_refused("{\"a\":{\"dtype\":\"F99\",\"shape\":[1],\"data_offsets\":[1,5]}}", 5,
		      "x: invalid offset for tensor `a`");
	check_refused("{\"a\":{\"dtype\":\"F99\",\"shape\":[1],\"data_offsets\":[0,5]}}", 6,
		      "x: incomplete metadata, file not fully covered");
	check_refused("{\"a\":{\"dtype\":\"F99\",\"shape\":[-1],\"data_offsets\":[0,5]}}", 5,
		      "x: invalid JSON in header: tensor `a`: `shape` is not a list of sizes at offset 37");
	check_refused("{\"a\":{\"dtype\":\"U8\\u0000\",\"shape\":[5],\"data_offsets\":[0,5]}}", 5,
		      "x: invalid JSON in header: tensor `a`: `dtype` is not a name at offset 22");
}

static void names_are_unescaped(void)
{
	struct wcx_safetensors *st = accept("{\"a\\n\\\"\\u00e9\\u540d\\ud83d\\ude00\":{" U8_ONE "}}", 1);

	if (st)
		CHECK_TEXT(st->tensors[0].name, "a\n\"\xC3\xA9\xE5\x90\x8D\xF0\x9F\x98\x80");
	wcx_safetensors_free(st);
}

static void last_of_equal_names_counts(void)
{
	struct wcx_safetensors *st = accept("{\"a\":{\"dtype\":\"F64\",\"shape\":[5],\"data_offsets\":[7,9]},"
					    "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]},"
					    "\"\\u0061\":{" U8_ONE "}}",
					    3);

	if (st && CHECK(st->tensor_count == 2)) {
		CHECK_TEXT(st->tensors[0].name, "a");
		CHECK_TEXT(st->tensors[0].dtype, "U8");
		CHECK_TEXT(st->tensors[1].name, "b");
	}
	wcx_safetensors_free(st);
}

static void sizes_go_up_to_64_bits(void)
{
	struct wcx_safetensors *st = accept("{\"a\":[\"U8\",[0,18446744073709551615],[0,0]]}", 0);

	CHECK(st && st->tensors[0].shape[1] == UINT64_MAX);
	wcx_safetensors_free(st);
	check_refused("{\"a\":[\"U8\",[18446744073709551616],[0,0]]}", 0,
		      "x: invalid JSON in header: tensor `a`: `shape` is not a list of sizes at offset 20");
	check_refused("{\"a\":[\"U8\",[-0],[0,0]]}", 0,
		      "x: invalid JSON in header: tensor `a`: `shape` is not a list of sizes at offset 20");
}

static void names_may_contain_nul(void)
{
	struct wcx_safetensors *st = accept("{\"a\\u0000b\":[\"U8\",[1],[1,2]],\"a\":[\"U8\",[1],[0,1]]}", 2);

	if (st && CHECK(st->tensor_count == 2)) {
		CHECK(st->tensors[0].name_bytes == 1);
		CHECK(st->tensors[1].name_bytes == 3 && memcmp(st->tensors[1].name, "a\0b", 4) == 0);
	}
	wcx_safetensors_free(st);
	check_refused("{\"a\\u0000b\":[\"U8\",[1],[1,2]]}", 2, "x: invalid offset for tensor `a?b`");
}

static void fields_stand_once(void)
{
	check_refused("{\"a\":{" U8_ONE ",\"\\u0064type\":\"U8\"}}", 1,
		      "x: invalid JSON in header: tensor `a`: `dtype` twice at offset 73");
	check_refused("{\"__metadata__\":null,\"__metadata__\":null}", 0,
		      "x: invalid JSON in header: `__metadata__` twice at offset 44");
}

static void sizes_that_contradict_each_other_are_refused(void)
{
	check_refused("{\"a\":[\"F32\",[2],[0,4]]}", 4,
		      "x: invalid shape, data type, or offset for tensor (data_offsets [0, 4] of tensor `a`)");
	check_refused("{\"a\":[\"F4\",[3],[0,1]]}", 1,
		      "x: The slice is slicing for subbytes dtypes, and the slice does not end up at a byte boundary, "
		      "this is invalid. (data_offsets [0, 1] of tensor `a`)");
	check_refused("{\"a\":[\"F32\",[4611686018427387904,4,0],[0,0]]}", 0,
		      "x: overflow computing buffer size from shape and/or element type "
		      "(data_offsets [0, 0] of tensor `a`)");
	check_refused("{\"a\":[\"F32\",[4611686018427387904],[0,0]]}", 0,
		      "x: overflow computing buffer size from shape and/or element type "
		      "(data_offsets [0, 0] of tensor `a`)");
	check_refused("{\"a\":[\"U8\",[1],[0,1]],\"b\":[\"U8\",[1],[2,3]]}", 3, "x: invalid offset for tensor `b`");
	check_refused("{\"a\":[\"U8\",[2],[2,0]]}", 2, "x: invalid offset for tensor `a`");
	check_refused("{\"a\":[\"U8\",[1],[0,1]],\"b\":[\"F99\",[],[1,0]]}", 0, "x: invalid offset for tensor `b`");
	check_refused("{\"a\":[\"U8\",[1],[0,1]]}", 2, "x: incomplete metadata, file not fully covered");
	check_refused("{\"a\":[\"U8\",[1],[0,1]]}", 0,
		      "x: truncated: 30 of 31 bytes (incomplete metadata, file not fully covered)");
}

static void end_of_the_data_is_compared_with_the_file(void)
{
	check_refused("{\"a\":[\"F99\",[],[0,9223372036854775807]]}", 7,
		      "x: truncated: 55 of 9223372036854775855 bytes (incomplete metadata, file not fully covered)");
}

static void text_that_is_no_header_is_refused_with_its_place(void)
{
	check_refused("[]", 0, "x: invalid JSON in header: not an object at offset 8");
	check_refused("{\n\n \"a\" 1}", 0, "x: invalid JSON in header: tensor `a`: ':' expected at offset 16");
	check_refused("{\"__metadata__\":[]}", 0, "x: invalid JSON in header: `__metadata__` is not a map at offset 24");
	check_refused("{\"__metadata__\":{\"a\":1}}", 0,
		      "x: invalid JSON in header: a value of `__metadata__` is not a string at offset 29");
	check_refused("{\"a\\u001b\":[\"U8\",[1]]}", 0,
		      "x: invalid JSON in header: tensor `a?`: missing field `data_offsets` at offset 29");
	check_refused("{\"\xC3\"}", 0, "x: invalid UTF-8 in header: invalid utf-8 sequence of 1 bytes from index 2");
	check_refused("{\"\xE5\x90", 0, "x: invalid UTF-8 in header: incomplete utf-8 byte sequence from index 2");
	check_refused("}\xE5\x90\"", 0, "x: invalid UTF-8 in header: invalid utf-8 sequence of 2 bytes from index 1");
}

static void misplaced_strings_are_refused_as_json(void)
{
	static const char *const cases[] = {
		"\"a\"",           "{\"a\"\"b\"}",        "{\"a\":1\"b\"}", "{\"a\":[1\"b\"]}", "{}\"a\"",
		"{\"a\":\"\\u\"}", "{\"a\":\"\\ud800\"}", "{\"a\":-\"\"}",  "{\"a\":x\"\"}",    "{\"a\":1.\"\"}",
		"{'\"\"",          "{\"a\":'\"\"",
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		check_refused_as("x: invalid JSON in header: ", cases[i], strlen(cases[i]));
}

/* A tensor with an unknown field of depth nested arrays. */
static void make_nested(int depth, char json[400])
{
	int head_bytes = sprintf(json, "{\"a\":{" U8_ONE ",\"x\":");

	memset(json + head_bytes, '[', (size_t)depth);
	memset(json + head_bytes + depth, ']', (size_t)depth);
	strcpy(json + head_bytes + 2 * depth, "}}");
}

static void nesting_is_limited_to_127(void)
{
	char json[400];

	make_nested(125, json); /* in two objects */
	wcx_safetensors_free(accept(json, 1));
	make_nested(126, json);
	check_refused(json, 1, "x: invalid JSON in header: tensor `a`: nested too deep at offset 190");
}

/* No prefix of a header without white space is a header. */
static void truncation_at_every_length_is_refused(void)
{
	const char *json =
		"{\"__metadata__\":{\"k\":\"v\"},\"a\\ud83d\\ude00\":{" U8_ONE ",\"x\":[null,true,false,-1.5e+3,{}]}}";
	struct wcx_safetensors *st = accept(json, 1);

	wcx_safetensors_free(st);
	for (size_t bytes = 0; bytes < strlen(json); bytes++)
		check_refused_as("x: invalid JSON in header: ", json, bytes);
}

/* A header of count tensors of one byte, with name_bytes bytes in each name and padding of spaces. */
static char *make_many(size_t count, int name_bytes, size_t *bytes_ret)
{
	char *json = __real_malloc(count * ((size_t)name_bytes + 100) + 3);
	size_t at = 0;

	json[at++] = '{';
	for (size_t i = 0; i < count; i++)
		at += (size_t)sprintf(json + at, "%s\"%0*zu\":{\"dtype\":\"U8\",\"shape\":[1,1],\"data_offsets\":[%zu,%zu]}",
				      i ? "," : "", name_bytes, i, count - 1 - i, count - i);
	json[at++] = '}';
	*bytes_ret = at;
	return json;
}

/* All allocations after the one that fails succeed: whatever goes on regardless is found out. */
static void every_allocation_may_fail(void)
{
	size_t json_bytes;
	char *json = make_many(20, 10, &json_bytes);
	long fail_at = 0;
	int result = -ENOMEM;

	while (result == -ENOMEM) {
		struct wcx_safetensors *st = NULL;
		struct wcx_error err = { "" };

		allocations_left = fail_at++;
		result = parse(json, json_bytes, 20, &st, &err);
		allocations_left = -1;
		CHECK(result == 0 || (st == NULL && strcmp(err.text, "x: no memory for the header") == 0));
		wcx_safetensors_free(st);
	}
	CHECK(result == 0);
	CHECK(fail_at == 4 + 1); /* the header, its tensors, dimensions and text */
	free(json);
}

/* Parses a header of count tensors; returns the number of calls of the wrapped functions. */
static unsigned long calls_for(size_t count)
{
	size_t json_bytes;
	char *json = make_many(count, 150, &json_bytes);
	struct wcx_safetensors *st = NULL;
	struct wcx_error err = { "" };
	unsigned long before = call_count, calls;

	CHECK(parse(json, json_bytes, count, &st, &err) == 0);
	calls = call_count - before;
	CHECK(st && st->tensor_count == count && st->tensors[count - 1].shape[1] == 1);
	wcx_safetensors_free(st);
	free(json);
	return calls;
}

/* Tensors are sorted by name and by offset: n log n comparisons, and a fixed number of allocations. */
static void work_grows_with_the_tensors_and_not_with_their_square(void)
{
	const unsigned long few = calls_for(1000), many = calls_for(20000);

	CHECK(few > 1000 && many <= 30 * few);
}

static void memory_grows_with_the_tensors_alone(void)
{
	enum { TENSORS = 100000, EMPTY_OBJECTS = 1000000 };
	struct wcx_safetensors *st = NULL;
	struct wcx_error err = { "" };
	size_t json_bytes, at;
	char *json = make_many(TENSORS, 10, &json_bytes);

	allocated_bytes = 0;
	CHECK(parse(json, json_bytes, TENSORS, &st, &err) == 0);
	CHECK(allocated_bytes <= 256 * TENSORS);
	wcx_safetensors_free(st);
	free(json);
	json = __real_malloc(3 * EMPTY_OBJECTS + 200);
	at = (size_t)sprintf(json, "{\"a\":{" U8_ONE ",\"x\":[{}");
	for (size_t i = 1; i < EMPTY_OBJECTS; i++)
		at += (size_t)sprintf(json + at, ",{}");
	at += (size_t)sprintf(json + at, "]}}");
	allocated_bytes = 0;
	st = NULL;
	CHECK(parse(json, at, 1, &st, &err) == 0);
	CHECK(allocated_bytes <= 1024);
	wcx_safetensors_free(st);
	free(json);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(length_is_checked_before_anything_is_allocated),
		CHECK_TEST(tensors_come_in_the_order_of_their_data),
		CHECK_TEST(file_without_tensors_is_legal),
		CHECK_TEST(dtypes_have_their_size_and_element),
		CHECK_TEST(unknown_dtype_is_a_row_of_bytes),
		CHECK_TEST(names_are_unescaped),
		CHECK_TEST(last_of_equal_names_counts),
		CHECK_TEST(sizes_go_up_to_64_bits),
		CHECK_TEST(names_may_contain_nul),
		CHECK_TEST(fields_stand_once),
		CHECK_TEST(sizes_that_contradict_each_other_are_refused),
		CHECK_TEST(end_of_the_data_is_compared_with_the_file),
		CHECK_TEST(text_that_is_no_header_is_refused_with_its_place),
		CHECK_TEST(misplaced_strings_are_refused_as_json),
		CHECK_TEST(nesting_is_limited_to_127),
		CHECK_TEST(truncation_at_every_length_is_refused),
		CHECK_TEST(every_allocation_may_fail),
		CHECK_TEST(work_grows_with_the_tensors_and_not_with_their_square),
		CHECK_TEST(memory_grows_with_the_tensors_alone),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
