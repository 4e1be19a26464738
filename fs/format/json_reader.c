/* SPDX-License-Identifier: MIT */
/* Reads JSON without a tree. */
#include "fs/format/json_reader.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "codec/arith.h"

bool wcx_json_fail(struct wcx_json *json, const char *fault)
{
	if (!json->fault)
		json->fault = fault;
	return false;
}

/* The next byte, or 0 at the end: a zero byte is legal nowhere outside of strings, where it is refused as well. */
static char next_byte(const struct wcx_json *json)
{
	return json->at < json->bytes ? json->text[json->at] : '\0';
}

char wcx_json_peek(struct wcx_json *json)
{
	if (json->fault)
		return '\0';
	while (next_byte(json) == ' ' || next_byte(json) == '\n' || next_byte(json) == '\t' || next_byte(json) == '\r')
		json->at++;
	return next_byte(json);
}

static bool take(struct wcx_json *json, char c, const char *fault)
{
	if (wcx_json_peek(json) != c)
		return wcx_json_fail(json, fault);
	json->at++;
	return true;
}

bool wcx_json_enter(struct wcx_json *json, char open)
{
	if (!take(json, open, open == '[' ? "'[' expected" : "'{' expected"))
		return false;
	if (json->depth == WCX_JSON_DEPTH_MAX)
		return wcx_json_fail(json, "nested too deep");
	json->depth++;
	return true;
}

bool wcx_json_next(struct wcx_json *json, char open, size_t index)
{
	const char close = open == '[' ? ']' : '}', c = wcx_json_peek(json);

	if (c == close) {
		json->at++;
		json->depth--;
		return false;
	}
	if (index > 0 && !take(json, ',', open == '[' ? "',' or ']' expected" : "',' or '}' expected"))
		return false;
	return !json->fault;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static int hex_digit(char c)
{
	if (is_digit(c))
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Four hexadecimal digits behind \u. */
static bool read_unit(struct wcx_json *json, uint32_t *ret)
{
	*ret = 0;
	for (int i = 0; i < 4; i++, json->at++) {
		const int digit = hex_digit(next_byte(json));

		if (digit < 0)
			return wcx_json_fail(json, "four hexadecimal digits expected");
		*ret = *ret << 4 | (uint32_t)digit;
	}
	return true;
}

static size_t write_utf8(uint32_t code, char dst[4])
{
	if (code < 0x80) {
		dst[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		dst[0] = (char)(0xC0 | code >> 6);
		dst[1] = (char)(0x80 | (code & 0x3F));
		return 2;
	}
	if (code < 0x10000) {
		dst[0] = (char)(0xE0 | code >> 12);
		dst[1] = (char)(0x80 | (code >> 6 & 0x3F));
		dst[2] = (char)(0x80 | (code & 0x3F));
		return 3;
	}
	dst[0] = (char)(0xF0 | code >> 18);
	dst[1] = (char)(0x80 | (code >> 12 & 0x3F));
	dst[2] = (char)(0x80 | (code >> 6 & 0x3F));
	dst[3] = (char)(0x80 | (code & 0x3F));
	return 4;
}

/* What follows \u: one unit, or a pair of surrogates. */
static bool read_code_point(struct wcx_json *json, uint32_t *ret)
{
	uint32_t low;

	if (!read_unit(json, ret))
		return false;
	if (*ret < 0xD800 || *ret > 0xDFFF)
		return true;
	if (*ret > 0xDBFF || json->bytes - json->at < 2 || memcmp(json->text + json->at, "\\u", 2) != 0)
		return wcx_json_fail(json, "lone surrogate");
	json->at += 2;
	if (!read_unit(json, &low))
		return false;
	if (low < 0xDC00 || low > 0xDFFF)
		return wcx_json_fail(json, "lone surrogate");
	*ret = 0x10000 + ((*ret - 0xD800) << 10 | (low - 0xDC00));
	return true;
}

/* What follows a backslash: returns how many bytes it stands for, at most four; 0 after a fault. */
static size_t read_escape(struct wcx_json *json, char dst[4])
{
	static const char escapes[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";
	const char c = next_byte(json), *found = c ? strchr(escapes, c) : NULL;
	uint32_t code;

	if (found) {
		json->at++;
		dst[0] = bytes[found - escapes];
		return 1;
	}
	if (c != 'u')
		return wcx_json_fail(json, "invalid escape");
	json->at++;
	if (!read_code_point(json, &code))
		return 0;
	return write_utf8(code, dst);
}

/* Appends to a string of *bytes so far as much as there is space for. */
static void append(char *dst, size_t dst_bytes, size_t *bytes, const char *src, size_t src_bytes)
{
	if (*bytes < dst_bytes)
		memcpy(dst + *bytes, src, WCX_MIN(src_bytes, dst_bytes - *bytes));
	*bytes += src_bytes;
}

bool wcx_json_string(struct wcx_json *json, char *dst, size_t dst_bytes, size_t *bytes_ret)
{
	size_t bytes = 0;

	json->has_nul = false;
	if (!take(json, '"', "string expected"))
		return false;
	for (;;) {
		const size_t start = json->at;
		char escaped[4] = { 0 };
		size_t escaped_bytes;

		while (json->at < json->bytes && (unsigned char)json->text[json->at] >= 0x20 &&
		       json->text[json->at] != '"' && json->text[json->at] != '\\')
			json->at++;
		append(dst, dst_bytes, &bytes, json->text + start, json->at - start);
		if (json->at == json->bytes)
			return wcx_json_fail(json, "the text ends in a string");
		if (json->text[json->at] == '"')
			break;
		if (json->text[json->at] != '\\')
			return wcx_json_fail(json, "control character in a string");
		json->at++;
		escaped_bytes = read_escape(json, escaped);
		if (!escaped_bytes)
			return false;
		json->has_nul |= escaped[0] == '\0';
		append(dst, dst_bytes, &bytes, escaped, escaped_bytes);
	}
	json->at++;
	*bytes_ret = bytes;
	return true;
}

bool wcx_json_colon(struct wcx_json *json)
{
	return take(json, ':', "':' expected");
}

bool wcx_json_key(struct wcx_json *json, char *dst, size_t dst_bytes, size_t *bytes_ret)
{
	return wcx_json_string(json, dst, dst_bytes, bytes_ret) && wcx_json_colon(json);
}

/* A number as serde_json takes it apart: digits that overflow 64 bits are dropped and counted in the exponent. */
struct number {
	uint64_t significand;
	int64_t exponent;
	bool is_full; /* the significand takes no more digits */
	bool is_integer;
};

/* Reads digits into the significand; returns how many there were.  step is what each does to the exponent if it counts. */
static size_t read_digits(struct wcx_json *json, struct number *number, bool is_fraction)
{
	const size_t start = json->at;

	for (; is_digit(next_byte(json)); json->at++) {
		const uint64_t digit = (uint64_t)(next_byte(json) - '0');
		uint64_t grown;

		number->is_full = number->is_full || __builtin_mul_overflow(number->significand, 10u, &grown) ||
				  __builtin_add_overflow(grown, digit, &grown);
		if (!number->is_full) {
			number->significand = grown;
			number->exponent -= is_fraction;
		} else {
			number->exponent += !is_fraction;
		}
	}
	return json->at - start;
}

static bool read_exponent(struct wcx_json *json, struct number *number)
{
	const bool is_negative = next_byte(json) == '-';
	int64_t exponent = 0;

	if (is_negative || next_byte(json) == '+')
		json->at++;
	if (!is_digit(next_byte(json)))
		return wcx_json_fail(json, "digit expected");
	for (; is_digit(next_byte(json)); json->at++)
		if (exponent <= INT_MAX) /* beyond, nothing is left of the number whatever its other digits are */
			exponent = 10 * exponent + (next_byte(json) - '0');
	number->exponent += is_negative ? -exponent : exponent;
	return true;
}

/* Whether a double is large enough for it. */
static bool fits_double(const struct number *number)
{
	enum { LARGEST_POWER = 308 };

	if (number->significand == 0 || number->exponent < 0)
		return true;
	if (number->exponent > LARGEST_POWER)
		return false;
	return !isinf((double)number->significand * pow(10, (double)number->exponent));
}

bool wcx_json_number(struct wcx_json *json, bool *is_count_ret, uint64_t *count_ret)
{
	struct number number = { .is_integer = true };
	const char first = wcx_json_peek(json);
	const bool is_negative = first == '-';

	if (!is_negative && !is_digit(first))
		return wcx_json_fail(json, "number expected");
	json->at += is_negative;
	if (next_byte(json) == '0') {
		json->at++;
		if (is_digit(next_byte(json)))
			return wcx_json_fail(json, "a number begins with a zero");
	} else if (!read_digits(json, &number, false)) {
		return wcx_json_fail(json, "digit expected");
	}
	if (next_byte(json) == '.') {
		json->at++;
		number.is_integer = false;
		if (!read_digits(json, &number, true))
			return wcx_json_fail(json, "digit expected");
	}
	if (next_byte(json) == 'e' || next_byte(json) == 'E') {
		json->at++;
		number.is_integer = false;
		if (!read_exponent(json, &number))
			return false;
	}
	if (!fits_double(&number))
		return wcx_json_fail(json, "number out of range");
	/* serde_json takes -0 for a floating-point number. */
	*is_count_ret = number.is_integer && !number.is_full && !is_negative;
	*count_ret = number.significand;
	return true;
}

static bool skip_word(struct wcx_json *json, const char *word)
{
	const size_t bytes = strlen(word);

	if (json->bytes - json->at < bytes || memcmp(json->text + json->at, word, bytes) != 0)
		return wcx_json_fail(json, "value expected");
	json->at += bytes;
	return true;
}

bool wcx_json_skip(struct wcx_json *json)
{
	const char c = wcx_json_peek(json);
	uint64_t count;
	size_t bytes;
	bool is_count;

	switch (c) {
	case '{':
	case '[':
		if (!wcx_json_enter(json, c))
			return false;
		/* Calls itself at most WCX_JSON_DEPTH_MAX deep. */
		for (size_t i = 0; wcx_json_next(json, c, i); i++)
			if ((c == '{' && !wcx_json_key(json, NULL, 0, &bytes)) || !wcx_json_skip(json))
				return false;
		return !json->fault;
	case '"':
		return wcx_json_string(json, NULL, 0, &bytes);
	case 'n':
		return skip_word(json, "null");
	case 't':
		return skip_word(json, "true");
	case 'f':
		return skip_word(json, "false");
	default:
		if (c != '-' && !is_digit(c))
			return wcx_json_fail(json, "value expected");
		return wcx_json_number(json, &is_count, &count);
	}
}

bool wcx_json_end(struct wcx_json *json)
{
	wcx_json_peek(json);
	if (!json->fault && json->at < json->bytes)
		return wcx_json_fail(json, "text behind the end");
	return !json->fault;
}
