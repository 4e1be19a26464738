#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
#
# The layout of the source tree: what lies where, and who may include what.
#
#	tools -> fs/{mount,pack,lib} -> fs/read -> fs/format -> fs/base
#	tools -> fs/quantize -> fs/format
#	fs -> codec, fs/read and fs/lib -> cuda -> codec
#
# fs/mount, fs/pack, fs/quantize and fs/lib do not know each other.  codec needs libc alone; libfuse, CUDA, jansson, OpenSSL, xxHash and Zstandard are each known to few files.

bats_require_minimum_version 1.5.0

setup() {
	cd "$BATS_TEST_DIRNAME/.." || return
}

# Print the includes of C and CUDA sources in the directories given, as "file:line:#include ...".
includes() {
	find "$@" -type f \( -name "*.[ch]" -o -name "*.cu" -o -name "*.cuh" \) -exec \
		grep -nHE '^[[:space:]]*#[[:space:]]*include' {} +
}

# No line of the input matches the pattern; the lines that do are shown.
none_match() {
	if grep -E "$1"; then
		return 1
	fi
}

# Every line of the input matches the pattern; those that do not are shown.
all_match() {
	if grep -vE "$1"; then
		return 1
	fi
}

# Only the files named include headers that match the pattern, and each of them does.
only_included_by() {
	includes fs codec cuda tools | grep -E "<$1" | cut -d : -f 1 | sort -u >"$BATS_TEST_TMPDIR/files"
	printf "%s\n" "${@:2}" | sort | diff - "$BATS_TEST_TMPDIR/files"
}

# Source files and scripts, one a line.
sources() {
	find fs codec cuda tools tests -type f \( -name "*.[ch]" -o -name "*.cu" -o -name "*.cuh" -o -name "*.py" \
		-o -name "*.sh" -o -name "*.bash" -o -name "*.bats" \)
}

@test "the checks below see includes" {
	includes codec cuda fs tools tests | grep -q "codec/tile.h:.*<stdint.h>"
	echo "fs/a.c:1:#include <fuse.h>" >"$BATS_TEST_TMPDIR/lines"
	run -1 none_match "<fuse" <"$BATS_TEST_TMPDIR/lines"
	run -1 all_match 'include "codec/' <"$BATS_TEST_TMPDIR/lines"
	run -1 only_included_by "fuse" fs/mount/fuse_ops.c fs/mount/mount_options.c fs/mount/session.c
	[[ "$output" == *"> fs/mount/main.c" ]]
}

@test "nothing but the directories and files agreed on lies at the top" {
	find . -mindepth 1 -maxdepth 1 ! -name ".*" ! -name "build*" -printf "%f\n" |
		all_match '^(fs|codec|cuda|tools|tests|docs|CMakeLists\.txt|README\.md|LICENSE)$'
}

@test "file names are unique in the tree" {
	find fs codec cuda tools tests docs -type f ! -path "*/__pycache__/*" ! -name CMakeLists.txt -printf "%f\n" |
		sort | uniq -d | none_match .
}

@test "every source file opens with the licence" {
	while read -r file; do
		{ read -r first && read -r second; } <"$file"
		case "$file" in
		*.[ch] | *.cu | *.cuh)
			[ "$first" = "/* SPDX-License-Identifier: MIT */" ]
			;;
		*)
			[[ "$first" != "#!"* ]] || first=$second
			[ "$first" = "# SPDX-License-Identifier: MIT" ]
			;;
		esac || {
			echo "$file"
			return 1
		}
	done < <(sources)
}

@test "headers are included from the top of the tree" {
	while IFS=: read -r file line text; do
		[[ "$text" =~ \"([^\"]*/[^\"]*)\" ]] && [ -f "${BASH_REMATCH[1]}" ] || {
			echo "$file:$line: $text"
			return 1
		}
	done < <(includes fs codec cuda tools tests | grep '"')
}

@test "codec knows itself and libc" {
	includes codec | grep '"' | all_match 'include "codec/'
	includes codec | grep '<' |
		all_match '<(assert|errno|immintrin|limits|math|stdatomic|stdbool|stddef|stdint|stdlib|string|time)\.h>'
}

@test "cuda knows itself, codec, libc, threads and CUDA" {
	includes cuda | grep '"' | all_match 'include "(codec|cuda)/'
	includes cuda | none_match '<(fuse|jansson|xxhash|openssl|zstd)'
	# Headers for others are free of CUDA, and so is what builds without it.
	includes cuda/gpu_checksum.h cuda/gpu_decode.h cuda/gpu_load.h cuda/gpu_timing.h cuda/gpu_clock.h cuda/tile_batch.h cuda/tile_batch.c cuda/gpu_stub.c |
		none_match '<(cuda|nv|cub|thrust)|gpu_queue\.h|tile_kernel\.h'
	includes fs tools tests | grep '"cuda/' | grep -Ev '^tests/unit/test_(tile_batch|gpu_clock|kernel_shapes)\.c:' |
		all_match 'include "cuda/gpu_(checksum|decode|hold|load|timing)\.h"'
}

# check_room ROOM BELOW... - a room of fs includes its own headers, codec's, and those of the rooms below
check_room() {
	local rooms

	rooms="$(printf "|fs/%s" "$@")"
	includes "fs/$1" | grep '"' | all_match "include \"(codec|cuda$rooms)/"
}

@test "each room of fs knows the rooms below alone" {
	check_room base
	check_room format base
	check_room read format base
	check_room pack read format base
	check_room quantize format base
	check_room mount read format base
	check_room lib read format base
	# Every file is in one of these rooms.
	find fs -type f | all_match '^fs/(base|format|read|pack|quantize|mount|lib)/[a-z0-9_]+\.[ch]$'
}

@test "the GPU is known to the rooms that decode" {
	includes fs/base fs/format fs/pack fs/quantize fs/mount | grep '"' | none_match 'include "cuda/'
}

@test "fs knows nothing of the command line and the tests" {
	includes fs | none_match 'include "(tools|tests)/'
}

@test "tools know the rooms of the program wcx" {
	includes tools | grep '"' | all_match 'include "(tools|codec|fs/(base|format|read|pack|quantize))/'
}

@test "only tests know the tests" {
	includes tools | none_match 'include "tests/'
}

@test "libfuse is known to the callbacks, the session, its options, the log and the program" {
	only_included_by "fuse" fs/mount/fuse_calls.h fs/mount/fuse_ops.c fs/mount/fuse_server.h \
		fs/mount/session.c fs/mount/mount_options.c fs/mount/log_output.c fs/mount/main.c
}

@test "CUDA is known to nobody outside cuda" {
	# But for one benchmark, which times NVIDIA's own codec.
	includes fs codec tools tests | grep -v '^tests/bench/gpu_peer_nvcomp\.c:' |
		none_match '<(cuda|cuda_runtime|cuda_runtime_api|nv[a-z]*|cub|thrust)[./_]'
}

@test "jansson is known to what prints JSON, and to what reads and writes the JSON of models" {
	only_included_by "jansson" tools/info_report.c tools/json_output.h tools/command_status.c tools/status_report.h \
		fs/mount/status_text.c fs/quantize/model_config.c \
		fs/quantize/model_files.h
}

@test "PCRE2 is known to the list of ignored modules" {
	only_included_by "pcre2" fs/quantize/ignore_list.c
}

@test "OpenSSL is known to the files that make a SHA-256" {
	only_included_by "openssl" fs/read/export.c fs/pack/digest_queue.c fs/pack/pack_done.c
}

@test "xxHash is known to the container" {
	only_included_by "xxh" fs/format/container.c
}

@test "zstd is known to the files that plan, pack, decode and compare" {
	only_included_by "zstd" fs/pack/compare.c fs/read/decoder.c fs/pack/pack_worker.c fs/pack/plan_view.c
}

@test "libraries do not print or exit" {
	# But the program wcxfs, its log, and what it forks.  Lines that begin with a text are messages.
	find codec cuda fs -type f ! -path fs/mount/main.c ! -name 'log_output.[ch]' ! -name 'guard.[ch]' ! -name '*child.[ch]' \
		-exec grep -nH . {} + | grep -vE '^[^:]+:[0-9]+:[[:space:]]*"' |
		none_match '\b(printf|fprintf|puts|putchar|perror|exit|_exit|abort)\(|\b(stdout|stderr)\b'
}

@test "every test is run by ctest" {
	local lists name

	lists=$(<tests/CMakeLists.txt)
	while read -r file; do
		name=${file##*/}
		[[ "$lists" =~ [^A-Za-z0-9_]${name%.*}[^A-Za-z0-9_] ]] || {
			echo "$file"
			return 1
		}
	done < <(find tests -name "*.bats" -o -name "test_*.c")
}

@test "every source file is built" {
	local lists

	lists=$(<CMakeLists.txt)
	while read -r file; do
		[[ "$lists" == *"$file"* ]] || {
			echo "$file"
			return 1
		}
	done < <(find fs codec cuda tools -name "*.c" -o -name "*.cu")
}
