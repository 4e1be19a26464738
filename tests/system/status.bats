#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2030,SC2031,SC2154 # each test is a process, and sets MNT for itself; run sets stderr
#
# What a mount tells of itself and its files: wcx status, extended attributes, du and df.

bats_require_minimum_version 1.5.0
load ../fixtures/suite
load mount_helper

setup_file() {
	mount_setup_file || return 0
	export ORIG="$BATS_FILE_TMPDIR/orig" STORE="$BATS_FILE_TMPDIR/store" MODEL="deep/a \"model\".safetensors"

	mkdir -p "$ORIG" "$STORE/deep" "$STORE/secret"
	"$PYTHON" "$FIXTURES/make_int8.py" "$ORIG/model" --mib 4
	"$WCX" pack -q "$ORIG/model" "$STORE/$MODEL.wcx"
	"$PYTHON" "$FIXTURES/make_int8.py" "$ORIG/small" --mib 1
	"$WCX" pack -q "$ORIG/small" "$STORE/secret/small.safetensors.wcx"
	chmod 700 "$STORE/secret"
	echo '{"model_type": "test"}' >"$STORE/config.json"
	chmod 755 "$BATS_RUN_TMPDIR" "$BATS_FILE_TMPDIR" # another user reads, too
}

setup() {
	suite_start
	[ "$(id -u)" -eq 0 ] || skip "only root can make mounts"
	mount_setup
	chmod 755 "$BATS_TEST_TMPDIR"
}

teardown() {
	mount_teardown
}

# Print what a Python expression makes of the status of $MNT, s.
status() {
	"$WCX" status --json --files "$MNT" | "$PYTHON" -c "import json, sys; s = json.load(sys.stdin); print(($1))"
}

attribute() {
	"$PYTHON" -c "import os, sys; print(os.getxattr(sys.argv[1], sys.argv[2]).decode())" "$1" "user.wcx.$2"
}

@test "wcx status counts files, reads, tiles and decoded bytes" {
	local packed original decoded

	packed=$(stat -c %s "$STORE/$MODEL.wcx")
	original=$(stat -c %s "$ORIG/model")
	start_mount "$STORE" -o cache_size=64M,decoder=cpu,prefetch=0
	[ "$(status 's["files"]["packed"], s["files"]["plain"]')" = "(2, 1)" ]
	[ "$(status 's["decoded"]["cpu"]["bytes"], s["packed_reads"], s["errors"]')" = "(0, {'requests': 0, 'bytes': 0}, 0)" ]
	cmp "$ORIG/model" "$MNT/$MODEL"
	cat "$MNT/config.json"
	# Each byte is asked for once, and decoded once at most.
	[ "$(status 's["packed_reads"]["bytes"]')" -eq "$original" ]
	decoded=$(status 's["decoded"]["cpu"]["bytes"]') # tensors with the same bytes share tiles
	[ "$decoded" -le "$original" ]
	[ "$decoded" -gt $((original * 9 / 10)) ]
	[ "$(status 's["plain_reads"]["requests"]')" -eq 1 ]
	status 's["decoded"]["cpu"]["bytes_per_second"] > 1e6 and 0 <= s["cache"]["hit_rate"] < 1' | grep -x True
	status 's["gpu_memory"] == {"device_bytes": 0, "pinned_bytes": 0, "buffer_bytes": 0}' | grep -x True
	status 's["cache"]["budget_bytes"], s["cache"]["misses"] > 50, s["up"], s["decoder"][:3]' |
		grep -xF "(67108864, True, True, 'cpu')"
	# And so by file, of which one was not opened.
	[ "$(status '[f["decoded_bytes"] for f in s["file_list"]]')" = "[$decoded, 0]" ]
	[ "$(status '[(f["original_bytes"], f["packed_bytes"], f["requested_bytes"]) for f in s["file_list"]][0]')" = \
		"($original, $packed, $original)" ]
	[ "$(status 's["file_list"][0]["path"]')" = "$MODEL" ]
	# Every key is documented.
	"$WCX" status --json --files "$MNT" | "$PYTHON" -c '
import json, sys
text = open(sys.argv[1]).read()
def check(value):
    for key in value if isinstance(value, dict) else ():
        assert chr(96) + key + chr(96) in text, key
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        check(part)
check(json.load(sys.stdin))' "$BATS_TEST_DIRNAME/../../docs/operations.md"
	# The counters stay when the file is closed and dropped from memory, and the kernel asks again.
	dd if="$MNT/$MODEL" iflag=nocache count=0 status=none
	cmp "$ORIG/model" "$MNT/$MODEL"
	[ "$(status 's["packed_reads"]["bytes"]')" -eq $((2 * original)) ]
	[ "$(status 's["decoded"]["cpu"]["bytes"]')" -eq "$decoded" ]
}

@test "wcx status counts pushed pages, and errors of damaged files" {
	local store="$BATS_TEST_TMPDIR/damaged"

	mkdir "$store"
	"$PYTHON" "$FIXTURES/make_int8.py" "$BATS_TEST_TMPDIR/model" --mib 16
	"$WCX" pack -q "$BATS_TEST_TMPDIR/model" "$store/model.wcx"
	cp "$STORE/$MODEL.wcx" "$store/bad.wcx"
	printf '\xff\xff\xff\xff' | dd of="$store/bad.wcx" bs=1 seek=1000000 conv=notrunc status=none
	start_mount "$store" -o decoder=cpu,log=stderr 2>"$LOG"
	cat "$MNT/model" >/dev/null
	run ! cat "$MNT/bad"
	status 's["ahead"]["pushed_bytes"] > 1e6, s["ahead"]["readers_followed"] > 0, s["errors"] > 0' |
		grep -xF "(True, True, True)"
	status '[(f["path"], f["pushed_bytes"] > 0, f["errors"] > 0) for f in s["file_list"]]' |
		grep -xF "[('bad', False, True), ('model', True, False)]"
	"$WCX" status "$MNT" | grep -E '^  errors    [1-9][0-9]*: the log says which'
}

@test "the table shows the same, and what is no mount of wcxfs is refused" {
	start_mount "$STORE" -o decoder=cpu
	cat "$MNT/$MODEL" >/dev/null
	run -0 "$WCX" status --files "$MNT/deep"
	echo "$output"
	[[ "$output" == "$MNT: store $STORE, mounted for "*"decoding with cpu"*"files     1 packed: "*"(ratio 1."* ]]
	[[ "$output" == *"cache "*"decoded "*" by CPU at "*"read "*"ahead "*"errors    0"*'a "model".safetensors' ]]
	run "$WCX" status --no-walk # of all mounts, some of which may be others'
	[[ "$output" == *"$MNT: store"* && "$output" != *"files  "* ]]
	mkdir "$BATS_TEST_TMPDIR/part" # of the mount, as a container may be given
	mount --bind "$MNT/deep" "$BATS_TEST_TMPDIR/part"
	run -0 "$WCX" status "$BATS_TEST_TMPDIR/part"
	umount "$BATS_TEST_TMPDIR/part"
	[[ "$output" == "$BATS_TEST_TMPDIR/part: store $STORE, mounted for "*"files     1 packed"* ]]
	run -1 "$WCX" status "$STORE"
	[[ "$output" == *"$STORE: not in a mount of wcxfs"* ]]
	run -1 "$WCX" status "$BATS_TEST_TMPDIR/none"
	run -2 "$WCX" status --json --prometheus
	run -2 "$WCX" status --files --no-walk
}

@test "commands for packed files say that they were given a mount" {
	start_mount "$STORE"
	for command in verify info rm; do
		run -1 "$WCX" "$command" "$MNT"
		[[ "$output" == "wcx $command: $MNT: no packed file in it, since it is in a mount of wcxfs; "* ]]
	done
	[ -e "$STORE/$MODEL.wcx" ]
}

@test "commands that write to a mount say that it is one" {
	local models="$BATS_TEST_TMPDIR/models" arguments

	start_mount "$STORE"
	mkdir "$models"
	cp "$MNT/$MODEL" "$models/new.safetensors"
	for arguments in "$models $MNT" "$models $MNT/deep/new/tree" "$models/new.safetensors $MNT/new.wcx" "--rm $MNT"; do
		# shellcheck disable=SC2086
		run -1 "$WCX" pack $arguments
		[[ "$output" == "wcx pack: $MNT"*": Read-only file system: it is in a mount of wcxfs; write to the store of that (wcx status shows it)"* ]]
	done
	run -1 "$WCX" unpack "$STORE/$MODEL.wcx" "$MNT/new"
	[[ "$output" == "wcx unpack: $MNT/new: Read-only file system: it is in a mount of wcxfs; "* ]]
}

@test "a dead mount is told as such, in JSON and for Prometheus" {
	local pid

	start_mount "$STORE"
	pid=$(daemons)
	kill -KILL "$pid"
	reader wait_exit "$pid"
	run -1 --separate-stderr "$WCX" status --json "$MNT"
	[[ "$output" == *'"up":false'* && "$stderr" == *"Transport endpoint is not connected"* ]]
	run -1 --separate-stderr "$WCX" status --prometheus "$MNT"
	[[ "$output" == *"wcxfs_up{mount=\"$MNT\"} 0" ]]
	umount -l "$MNT"
}

@test "a mount whose daemon hangs is told as such, and the others are asked" {
	local other="$BATS_TEST_TMPDIR/other" pid

	mkdir "$other"
	start_mount "$STORE" -o decoder=cpu
	"$WCXFS" "$STORE" "$other" -o decoder=cpu
	pid=$(daemons)
	kill -STOP "$pid"
	run --separate-stderr timeout 60 "$WCX" status --json "$MNT/deep" "$other"
	kill -CONT "$pid"
	umount "$other"
	echo "$status: $output $stderr"
	[ "$status" -eq 1 ]
	[ "${#lines[@]}" -eq 2 ]
	[[ "${lines[0]}" == *"\"mountpoint\":\"$MNT\","*'"up":false'* && "${lines[1]}" == *'"up":true'*'"packed":2'* ]]
	[[ "$stderr" == "wcx status: $MNT/deep: no answer within 10 seconds" ]]
	run -0 "$WCX" status "$MNT"
}

# Not even SIGKILL ends who waits for a request that was read.
@test "nothing that reads what wcx status prints waits for a mount that has read a request and does not answer" {
	local gate="$BATS_TEST_TMPDIR/gate"

	ln -s "$WCX_BUILD/tests/slow_store" "$BATS_TEST_TMPDIR/wcxfs" # which gives the mount its type
	"$BATS_TEST_TMPDIR/wcxfs" "$ORIG" "$MNT" 0 "$gate" 3>&-
	echo "getxattr /" >"$gate"
	# shellcheck disable=SC2016 # for bash
	run timeout 60 bash -c '"$WCX" status "$1" 2>&1 7>&1 | cat' - "$MNT"
	rm "$gate"
	umount --lazy "$MNT" # a child may still be there
	echo "$status: $output"
	[ "$status" -eq 0 ]
	[[ "$output" == "wcx status: $MNT: no answer within 10 seconds"* ]]
}

# The grammar of https://prometheus.io/docs/instrumenting/exposition_formats: names, escaped labels, HELP and TYPE once and
# before the samples, which stand together; counters end in _total.
@test "what Prometheus gets can be parsed, and names and units are as they should be" {
	local status="" mnt="$MNT/a \"mount\" \\ of mine"

	mkdir "$mnt"
	"$WCXFS" "$STORE" "$mnt" -o decoder=cpu
	cat "$mnt/$MODEL" >/dev/null
	"$WCX" status --prometheus --files "$mnt" >"$BATS_TEST_TMPDIR/metrics" || status=$?
	umount "$mnt"
	[ -z "$status" ]
	"$PYTHON" - "$BATS_TEST_TMPDIR/metrics" "$mnt" "$MODEL" <<-'END'
		import re, sys

		text = open(sys.argv[1]).read()
		assert text.endswith("\n")
		types, values, last, seen = {}, {}, None, set()
		for line in text.splitlines():
		    if match := re.fullmatch(r"# (HELP|TYPE) (wcxfs_[a-z_]+) (\S.*)", line):
		        kind, name, rest = match.groups()
		        if kind == "TYPE":
		            assert name not in types and rest in ("counter", "gauge"), line
		            types[name] = rest
		        continue
		    match = re.fullmatch(r'([a-z_]+)\{((?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\} (-?[0-9.e+-]+)', line)
		    assert match, line
		    name, labels, value = match.groups()
		    labels = {k: re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), v)
		              for k, v in re.findall(r'([a-z]+)="((?:[^"\\]|\\.)*)"', labels)}
		    assert labels["mount"] == sys.argv[2], labels
		    assert name in types and (types[name] == "counter") == name.endswith("_total"), line
		    assert name == last or name not in seen, line
		    last = name
		    seen.add(name)
		    key = (name, labels.get("kind") or labels.get("by") or labels.get("file"))
		    assert key not in values, line
		    values[key] = float(value)
		assert set(types) == seen
		assert values["wcxfs_up", None] == 1 and values["wcxfs_files", "packed"] == 2
		assert values["wcxfs_decoded_bytes_total", "cpu"] > 0 == values["wcxfs_decoded_bytes_total", "gpu"]
		assert values["wcxfs_file_read_bytes_total", sys.argv[3]] > 0
	END
	if command -v promtool >/dev/null; then promtool check metrics <"$BATS_TEST_TMPDIR/metrics"; fi
	# Every metric is documented.
	sed -nE 's/^# TYPE ([a-z_]+) .*/\1/p' "$BATS_TEST_TMPDIR/metrics" | while read -r name; do
		grep -qF "\`$name\`" "$BATS_TEST_DIRNAME/../../docs/operations.md" || { echo "$name is not documented"; exit 1; }
	done
}

@test "names that are no UTF-8 have labels of their own, and no name writes to the terminal" {
	local store="$BATS_TEST_TMPDIR/names" csi=$'\xc2\x9b'

	mkdir "$store"
	for name in $'\xfe' $'\xff' "a$csi"; do
		cp "$STORE/$MODEL.wcx" "$store/$name.wcx"
	done
	start_mount "$store"
	"$WCX" status --prometheus --files "$MNT" | grep "^wcxfs_file_errors_total" >"$BATS_TEST_TMPDIR/lines"
	grep -F 'file_hex="fe"' "$BATS_TEST_TMPDIR/lines"
	[ "$(sort -u "$BATS_TEST_TMPDIR/lines" | wc -l)" -eq 3 ]
	run -0 "$WCX" status --files "$MNT"
	[[ "$output" == *"  a?"* && "$output" != *"$csi"* ]]
}

@test "a mount that is bound to itself is told of once" {
	start_mount "$STORE"
	mount --bind "$MNT" "$MNT"
	run "$WCX" status --prometheus --no-walk # of all mounts, some of which may be others'
	umount "$MNT"
	[ "$(grep -cF "wcxfs_up{mount=\"$MNT\"} 1" <<<"$output")" -eq 1 ]
}

@test "packed files have attributes that tell ratio, packed bytes, SHA-256 and dtypes; other files have none" {
	local file

	start_mount "$STORE"
	file="$MNT/$MODEL"
	[ "$(attribute "$file" packed_bytes)" -eq "$(stat -c %s "$STORE/$MODEL.wcx")" ]
	[ "$(attribute "$file" sha256)" = "$(sha256sum <"$ORIG/model" | cut -d " " -f 1)" ]
	[ "$(attribute "$file" ratio)" = "$("$PYTHON" -c '
import os, sys; print("%.3f" % (os.path.getsize(sys.argv[1]) / os.path.getsize(sys.argv[2])))' \
		"$ORIG/model" "$STORE/$MODEL.wcx")" ]
	[ "$(attribute "$file" dtypes)" = "$("$PYTHON" -c '
import collections, json, sys
f = open(sys.argv[1], "rb")
tensors = json.loads(f.read(int.from_bytes(f.read(8), "little")))
tensors.pop("__metadata__", None)
sums = collections.Counter()
for t in tensors.values():
    sums[t["dtype"]] += t["data_offsets"][1] - t["data_offsets"][0]
print(",".join("%s:%d" % s for s in sums.most_common()))' "$ORIG/model")" ]
	"$PYTHON" -c '
import os, sys
packed, plain, dir, root = sys.argv[1:]
assert os.listxattr(packed) == ["user.wcx." + n for n in ("ratio", "packed_bytes", "sha256", "dtypes")], os.listxattr(packed)
assert os.listxattr(plain) == os.listxattr(dir) == os.listxattr(root) == []
for path, name in ((plain, "ratio"), (dir, "ratio"), (root, "ratio"), (packed, "other"), (packed, "")):
    try:
        os.getxattr(path, "user.wcx." + name)
        sys.exit(f"{path} has {name}")
    except OSError as e:
        assert e.errno == 61, e' "$file" "$MNT/config.json" "$MNT/deep" "$MNT"
	if command -v getfattr >/dev/null; then getfattr -d "$file" 2>/dev/null | grep 'user.wcx.ratio="1\.'; fi
	run ! "$PYTHON" -c "import os, sys; os.setxattr(sys.argv[1], 'user.wcx.ratio', b'9')" "$file"
	[[ "$output" == *"Read-only file system"* ]]
}

@test "another user learns what the permissions allow, and no names or attributes of other files" {
	start_mount "$STORE" -o allow_other
	cat "$MNT/$MODEL" "$MNT/secret/small.safetensors" >/dev/null
	run -1 runuser -u nobody -- "$WCX" status --files --json "$MNT"
	echo "$output"
	[[ "$output" == *"secret: Permission denied"*'"files":{"packed":1,"plain":1,"unreadable":0'* ]]
	[[ "$output" != *"small.safetensors"* ]]
	chmod 600 "$STORE/$MODEL.wcx"
	sleep 1.1 # attributes are kept for a second
	run ! runuser -u nobody -- "$PYTHON" -c "import os, sys; os.getxattr(sys.argv[1], 'user.wcx.sha256')" "$MNT/$MODEL"
	[[ "$output" == *"Permission denied"* ]]
	chmod 644 "$STORE/$MODEL.wcx"
	chmod 711 "$STORE" # who may not read the root may not read its status
	sleep 1.1
	run -1 runuser -u nobody -- "$WCX" status --no-walk "$MNT"
	[[ "$output" == *"Permission denied"* ]]
	chmod 755 "$STORE"
}

@test "du tells what is on disk, du --apparent-size what is shown, df the store's file system; copies have no holes" {
	start_mount "$STORE"
	[ "$(du -B 512 "$MNT/$MODEL" | cut -f 1)" -eq "$(stat -c %b "$STORE/$MODEL.wcx")" ]
	[ "$(du -b "$MNT/$MODEL" | cut -f 1)" -eq "$(stat -c %s "$ORIG/model")" ]
	[ "$(df --output=size,itotal "$MNT" | tail -n 1)" = "$(df --output=size,itotal "$STORE" | tail -n 1)" ]
	for sparse in auto always; do
		cp --sparse=$sparse "$MNT/$MODEL" "$BATS_TEST_TMPDIR/copy"
		cmp "$ORIG/model" "$BATS_TEST_TMPDIR/copy"
	done
	tar -C "$MNT" --sparse -cf - deep | tar -C "$BATS_TEST_TMPDIR" -xf -
	cmp "$ORIG/model" "$BATS_TEST_TMPDIR/$MODEL"
}
