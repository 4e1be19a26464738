/* SPDX-License-Identifier: MIT */
/* Prints the status of mounts as a table, as JSON, and for Prometheus. */
#include "tools/status_report.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "codec/arith.h"
#include "fs/base/size_text.h"
#include "tools/json_output.h"
#include "tools/print.h"

enum { KEYS_MAX = 3, LABEL_BYTES = 8192 };

/* The value behind a path of keys, or NULL. */
static const json_t *find(const json_t *object, const char *const keys[KEYS_MAX])
{
	for (size_t i = 0; i < KEYS_MAX && keys[i] && object; i++)
		object = json_object_get(object, keys[i]);
	return object;
}

static double number(const json_t *object, const char *a, const char *b, const char *c)
{
	const char *const keys[KEYS_MAX] = { a, b, c };

	return json_number_value(find(object, keys));
}

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "";
}

/* --- what is computed here --- */

static void add_rate(json_t *decoded, const char *by)
{
	json_t *work = json_object_get(decoded, by);
	const double seconds = number(work, "seconds", NULL, NULL);

	if (work)
		json_object_set_new(work, "bytes_per_second",
				    json_real(seconds > 0 ? number(work, "bytes", NULL, NULL) / seconds : 0));
}

static void add_hit_rate(json_t *cache)
{
	const double hits = number(cache, "hits", NULL, NULL) + number(cache, "waits", NULL, NULL);
	const double all = hits + number(cache, "misses", NULL, NULL);

	if (cache)
		json_object_set_new(cache, "hit_rate", json_real(all > 0 ? hits / all : 0));
}

json_t *wcx_status_object(json_t *told, const char *mountpoint, const char *store)
{
	json_t *object = json_object();

	json_object_set_new(object, "type", json_string("mount"));
	json_object_set_new(object, "command", json_string("status"));
	wcx_json_set_path(object, "mountpoint", mountpoint);
	wcx_json_set_path(object, "store", store);
	json_object_set_new(object, "up", json_boolean(told != NULL));
	if (told) {
		json_object_update_missing(object, told); /* what was found out here is not the daemon's to tell */
		add_rate(json_object_get(object, "decoded"), "cpu");
		add_rate(json_object_get(object, "decoded"), "gpu");
		add_hit_rate(json_object_get(object, "cache"));
		json_decref(told);
	}
	return object;
}

void wcx_status_print_json(const json_t *mounts)
{
	const json_t *mount;
	size_t i;

	json_array_foreach(mounts, i, mount)
		wcx_json_print_line(json_copy((json_t *)(uintptr_t)mount));
}

/* --- the table --- */

static double ratio(double original_bytes, double packed_bytes)
{
	return packed_bytes > 0 ? original_bytes / packed_bytes : 1;
}

static void print_files(const json_t *mount)
{
	char original[WCX_SIZE_TEXT_BYTES], packed[WCX_SIZE_TEXT_BYTES], plain[WCX_SIZE_TEXT_BYTES];

	if (!json_object_get(mount, "files"))
		return;
	printf("  files     %.0f packed: %s on disk for %s (ratio %.3f); %.0f others with %s",
	       number(mount, "files", "packed", NULL), wcx_size_text(number(mount, "files", "packed_bytes", NULL), packed),
	       wcx_size_text(number(mount, "files", "original_bytes", NULL), original),
	       ratio(number(mount, "files", "original_bytes", NULL), number(mount, "files", "packed_bytes", NULL)),
	       number(mount, "files", "plain", NULL), wcx_size_text(number(mount, "files", "plain_bytes", NULL), plain));
	if (number(mount, "files", "unreadable", NULL) > 0)
		printf("; %.0f that you may not read", number(mount, "files", "unreadable", NULL));
	putchar('\n');
}

static void print_decoded(const json_t *mount, const char *by, const char *name, const char *before)
{
	char bytes[WCX_SIZE_TEXT_BYTES], rate[WCX_SIZE_TEXT_BYTES];

	printf("%s%s by %s", before, wcx_size_text(number(mount, "decoded", by, "bytes"), bytes), name);
	if (number(mount, "decoded", by, "seconds") > 0)
		printf(" at %s/s a thread", wcx_size_text(number(mount, "decoded", by, "bytes_per_second"), rate));
}

static void print_work(const json_t *mount)
{
	char a[WCX_SIZE_TEXT_BYTES], b[WCX_SIZE_TEXT_BYTES], c[WCX_SIZE_TEXT_BYTES];

	printf("  cache     %s of %s, at most %s so far; %.1f %% of %.0f tiles found, %.0f evicted\n",
	       wcx_memory_text(number(mount, "cache", "bytes", NULL), a),
	       wcx_memory_text(number(mount, "cache", "budget_bytes", NULL), b),
	       wcx_memory_text(number(mount, "cache", "peak_bytes", NULL), c),
	       100 * number(mount, "cache", "hit_rate", NULL),
	       number(mount, "cache", "hits", NULL) + number(mount, "cache", "waits", NULL) +
		       number(mount, "cache", "misses", NULL),
	       number(mount, "cache", "evictions", NULL));
	print_decoded(mount, "cpu", "CPU", "  decoded   ");
	print_decoded(mount, "gpu", "GPU", ", ");
	if (number(mount, "gpu_memory", "device_bytes", NULL) > 0)
		printf(", with %s of its memory; %s pinned, at most %s of them buffers beside the cache's tiles",
		       wcx_memory_text(number(mount, "gpu_memory", "device_bytes", NULL), a),
		       wcx_memory_text(number(mount, "gpu_memory", "pinned_bytes", NULL), b),
		       wcx_memory_text(number(mount, "gpu_memory", "buffer_bytes", NULL), c));
	printf("%s\n", json_is_true(json_object_get(mount, "gpu_lost")) ? ", which has failed" : "");
	printf("  read      %.0f requests for %s of packed files; %.0f for %s of others\n",
	       number(mount, "packed_reads", "requests", NULL),
	       wcx_size_text(number(mount, "packed_reads", "bytes", NULL), a),
	       number(mount, "plain_reads", "requests", NULL),
	       wcx_size_text(number(mount, "plain_reads", "bytes", NULL), b));
	printf("  ahead     %s pushed into the page cache, %s decoded for O_DIRECT; %.0f readers followed, %.0f lost\n",
	       wcx_size_text(number(mount, "ahead", "pushed_bytes", NULL), a),
	       wcx_size_text(number(mount, "ahead", "decoded_bytes", NULL), b),
	       number(mount, "ahead", "readers_followed", NULL), number(mount, "ahead", "readers_lost", NULL));
	printf("  errors    %.0f%s\n", number(mount, "errors", NULL, NULL),
	       number(mount, "errors", NULL, NULL) > 0 ? ": the log says which (syslog or journal, or -o log=)" : "");
}

static void print_file_list(const json_t *list)
{
	const json_t *file;
	size_t i;

	if (json_array_size(list))
		printf("\n  %10s %10s %6s %9s %10s %10s %10s %6s  %s\n", "original", "packed", "ratio", "requests", "read",
		       "decoded", "pushed", "errors", "file");
	json_array_foreach(list, i, file) {
		char a[WCX_SIZE_TEXT_BYTES], b[WCX_SIZE_TEXT_BYTES], c[WCX_SIZE_TEXT_BYTES], d[WCX_SIZE_TEXT_BYTES],
			e[WCX_SIZE_TEXT_BYTES];
		const double original = number(file, "original_bytes", NULL, NULL);
		const double packed = number(file, "packed_bytes", NULL, NULL);

		printf("  %10s %10s %6.3f %9.0f %10s %10s %10s %6.0f  ", wcx_size_text(original, a),
		       wcx_size_text(packed, b), ratio(original, packed), number(file, "requests", NULL, NULL),
		       wcx_size_text(number(file, "requested_bytes", NULL, NULL), c),
		       wcx_size_text(number(file, "decoded_bytes", NULL, NULL), d),
		       wcx_size_text(number(file, "pushed_bytes", NULL, NULL), e), number(file, "errors", NULL, NULL));
		wcx_print(stdout, "%s\n", text(file, "path"));
	}
}

static void print_since(double seconds)
{
	if (seconds >= 2 * 86400)
		printf("%.0f days", seconds / 86400);
	else if (seconds >= 2 * 3600)
		printf("%.0f hours", seconds / 3600);
	else if (seconds >= 2 * 60)
		printf("%.0f minutes", seconds / 60);
	else
		printf("%.0f seconds", seconds);
}

void wcx_status_print_table(const json_t *mounts)
{
	const json_t *mount;
	size_t i;

	json_array_foreach(mounts, i, mount) {
		if (i)
			putchar('\n');
		wcx_print(stdout, "%s: store %s", text(mount, "mountpoint"), text(mount, "store"));
		if (!json_is_true(json_object_get(mount, "up"))) {
			printf(", does not answer\n");
			continue;
		}
		if (!json_object_get(mount, "pid")) {
			printf(", tells no status\n");
			continue;
		}
		printf(", mounted for ");
		print_since(number(mount, "uptime_seconds", NULL, NULL));
		wcx_print(stdout, " by process %.0f, decoding with %s\n", number(mount, "pid", NULL, NULL),
			  text(mount, "decoder"));
		print_files(mount);
		print_work(mount);
		print_file_list(json_object_get(mount, "file_list"));
	}
}

/* --- Prometheus --- */

/* Lines with one name stand together; the first has its type and help.  label is added to that of the mount. */
struct metric {
	const char *name, *type, *help, *label;
	const char *keys[KEYS_MAX]; /* of the value in a mount's object, or in a file's */
};

static const struct metric mount_metrics[] = {
	{ "wcxfs_up", "gauge", "Whether the daemon answers.", "", { "up" } },
	{ "wcxfs_uptime_seconds", "gauge", "Time since the store was mounted.", "", { "uptime_seconds" } },
	{ "wcxfs_files", "gauge", "Files of the mount.", ",kind=\"packed\"", { "files", "packed" } },
	{ "wcxfs_files", NULL, NULL, ",kind=\"plain\"", { "files", "plain" } },
	{ "wcxfs_files", NULL, NULL, ",kind=\"unreadable\"", { "files", "unreadable" } },
	{ "wcxfs_original_bytes", "gauge", "Bytes of the packed files as shown.", "", { "files", "original_bytes" } },
	{ "wcxfs_packed_bytes", "gauge", "Bytes of the packed files as stored.", "", { "files", "packed_bytes" } },
	{ "wcxfs_plain_bytes", "gauge", "Bytes of the files that are not packed.", "", { "files", "plain_bytes" } },
	{ "wcxfs_cache_budget_bytes", "gauge", "Most bytes that the tile cache keeps.", "", { "cache", "budget_bytes" } },
	{ "wcxfs_cache_bytes", "gauge", "Bytes of tiles in memory.", "", { "cache", "bytes" } },
	{ "wcxfs_cache_peak_bytes", "gauge", "Most bytes of tiles that were in memory.", "", { "cache", "peak_bytes" } },
	{ "wcxfs_cache_hits_total", "counter", "Tiles wanted that were in the cache.", "", { "cache", "hits" } },
	{ "wcxfs_cache_misses_total", "counter", "Tiles wanted that had to be decoded.", "", { "cache", "misses" } },
	{ "wcxfs_cache_waits_total",
	  "counter",
	  "Tiles wanted that were being decoded for another reader.",
	  "",
	  { "cache", "waits" } },
	{ "wcxfs_cache_evictions_total", "counter", "Tiles evicted for others.", "", { "cache", "evictions" } },
	{ "wcxfs_decoded_bytes_total", "counter", "Bytes decoded.", ",by=\"cpu\"", { "decoded", "cpu", "bytes" } },
	{ "wcxfs_decoded_bytes_total", NULL, NULL, ",by=\"gpu\"", { "decoded", "gpu", "bytes" } },
	{ "wcxfs_decode_seconds_total",
	  "counter",
	  "Time spent on decoding, of all threads.",
	  ",by=\"cpu\"",
	  { "decoded", "cpu", "seconds" } },
	{ "wcxfs_decode_seconds_total", NULL, NULL, ",by=\"gpu\"", { "decoded", "gpu", "seconds" } },
	{ "wcxfs_gpu_lost", "gauge", "Whether the GPU has failed, so that the CPU decodes.", "", { "gpu_lost" } },
	{ "wcxfs_read_requests_total",
	  "counter",
	  "Read requests of the kernel.",
	  ",kind=\"packed\"",
	  { "packed_reads", "requests" } },
	{ "wcxfs_read_requests_total", NULL, NULL, ",kind=\"plain\"", { "plain_reads", "requests" } },
	{ "wcxfs_read_bytes_total",
	  "counter",
	  "Bytes that the kernel asked for.",
	  ",kind=\"packed\"",
	  { "packed_reads", "bytes" } },
	{ "wcxfs_read_bytes_total", NULL, NULL, ",kind=\"plain\"", { "plain_reads", "bytes" } },
	{ "wcxfs_pushed_bytes_total",
	  "counter",
	  "Bytes pushed into the page cache ahead of readers.",
	  "",
	  { "ahead", "pushed_bytes" } },
	{ "wcxfs_decoded_ahead_bytes_total",
	  "counter",
	  "Bytes decoded ahead of readers with O_DIRECT.",
	  "",
	  { "ahead", "decoded_bytes" } },
	{ "wcxfs_readers_followed_total", "counter", "Readers followed.", "", { "ahead", "readers_followed" } },
	{ "wcxfs_readers_lost_total",
	  "counter",
	  "Readers followed that then went elsewhere.",
	  "",
	  { "ahead", "readers_lost" } },
	{ "wcxfs_errors_total", "counter", "Requests that failed for a reason that the log tells.", "", { "errors" } },
};

static const struct metric file_metrics[] = {
	{ "wcxfs_file_original_bytes", "gauge", "Bytes of a packed file as shown.", "", { "original_bytes" } },
	{ "wcxfs_file_packed_bytes", "gauge", "Bytes of a packed file as stored.", "", { "packed_bytes" } },
	{ "wcxfs_file_read_requests_total", "counter", "Read requests for a packed file.", "", { "requests" } },
	{ "wcxfs_file_read_bytes_total", "counter", "Bytes asked for of a packed file.", "", { "requested_bytes" } },
	{ "wcxfs_file_decoded_bytes_total", "counter", "Bytes decoded of a packed file.", "", { "decoded_bytes" } },
	{ "wcxfs_file_pushed_bytes_total", "counter", "Bytes of a packed file pushed ahead.", "", { "pushed_bytes" } },
	{ "wcxfs_file_errors_total", "counter", "Failed reads of a packed file.", "", { "errors" } },
};

size_t wcx_label_escape(const char *value, char *dst, size_t dst_bytes)
{
	size_t used = 0;

	for (; *value; value++) {
		const bool escapes = *value == '\\' || *value == '"' || *value == '\n';

		if (used + escapes + 1 >= dst_bytes)
			break;
		if (escapes)
			dst[used++] = '\\';
		dst[used++] = *value == '\n' ? 'n' : *value;
	}
	while (used && ((unsigned char)value[0] & 0xC0) == 0x80) /* the middle of a character: leave out its beginning */
		value--, used--;
	dst[used] = '\0';
	return used;
}

static void print_value(const json_t *value)
{
	if (json_is_integer(value))
		printf(" %" JSON_INTEGER_FORMAT "\n", json_integer_value(value));
	else if (json_is_real(value))
		printf(" %.9g\n", json_real_value(value));
	else
		printf(" %d\n", json_is_true(value));
}

/* The label of a path, and another of its bytes if it is no UTF-8: two such paths may be shown alike. */
static void print_path_label(const char *label, const json_t *object, const char *key)
{
	char value[LABEL_BYTES], hex_key[32];

	wcx_label_escape(text(object, key), value, sizeof value);
	printf("%s=\"%s\"", label, value);
	snprintf(hex_key, sizeof hex_key, "%s_hex", key);
	if (wcx_label_escape(text(object, hex_key), value, sizeof value))
		printf(",%s_hex=\"%s\"", label, value);
}

static void print_sample(const struct metric *metric, const json_t *mount, const json_t *file, bool *is_described)
{
	const json_t *value = find(file ? file : mount, metric->keys);

	if (!value)
		return;
	if (!*is_described && metric->type)
		printf("# HELP %s %s\n# TYPE %s %s\n", metric->name, metric->help, metric->name, metric->type);
	*is_described = true;
	printf("%s{", metric->name);
	print_path_label("mount", mount, "mountpoint");
	if (file) {
		putchar(',');
		print_path_label("file", file, "path");
	}
	printf("%s}", metric->label);
	print_value(value);
}

void wcx_status_print_prometheus(const json_t *mounts)
{
	const json_t *mount, *file;
	bool is_described = false;
	size_t i, j;

	for (size_t m = 0; m < WCX_ARRAY_COUNT(mount_metrics); m++) {
		is_described &= !mount_metrics[m].type;
		json_array_foreach(mounts, i, mount)
			print_sample(&mount_metrics[m], mount, NULL, &is_described);
	}
	for (size_t m = 0; m < WCX_ARRAY_COUNT(file_metrics); m++) {
		is_described = false;
		json_array_foreach(mounts, i, mount) {
			const json_t *list = json_object_get(mount, "file_list");

			json_array_foreach(list, j, file)
				print_sample(&file_metrics[m], mount, file, &is_described);
		}
	}
}
