#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The Python package wcx: its tests, from the source tree and against a mount; and a wheel that is installed.

bats_require_minimum_version 1.5.0
load ../fixtures/suite
load mount_helper

setup_file() {
	suite_find numpy safetensors || return 0
	export WCX_LIBRARY="${WCX%/*}/libwcx.so" PACKAGE="$BATS_TEST_DIRNAME/../../tools/python"
	export WCX_TEST_DIR="$BATS_FILE_TMPDIR/work"
	mkdir "$WCX_TEST_DIR"
}

setup() {
	suite_start
	mount_setup
}

teardown() {
	! is_mounted || fusermount3 -u "$MNT"
}

@test "tests of the package" {
	if (exec 3<>/dev/fuse) 2>/dev/null; then
		mkdir "$WCX_TEST_DIR/packed"
		"$WCXFS" "$WCX_TEST_DIR/packed" "$MNT" 3>&- 2>/dev/null
		export WCX_TEST_STORE="$WCX_TEST_DIR/packed" WCX_TEST_MOUNT="$MNT"
	fi
	PYTHONPATH="$PACKAGE:$PYTHONPATH" "$PYTHON" "$BATS_TEST_DIRNAME/python_package.py"
}

@test "a wheel contains the library, and works where it is installed" {
	local site="$BATS_TEST_TMPDIR/site"

	"$PYTHON" -c "import setuptools, wheel" || skip "setuptools or wheel is not installed"
	cp -r "$PACKAGE" "$BATS_TEST_TMPDIR/source"
	"$PYTHON" -m pip --disable-pip-version-check wheel -q --no-deps --no-build-isolation \
		-w "$BATS_TEST_TMPDIR" "$BATS_TEST_TMPDIR/source"
	"$PYTHON" -m pip --disable-pip-version-check install -q --no-deps --target "$site" "$BATS_TEST_TMPDIR"/wcx-*.whl
	[ -s "$site/wcx/libwcx.so.0" ]
	cd "$BATS_TEST_TMPDIR"
	env -u WCX_LIBRARY PYTHONPATH="$site" "$PYTHON" - "$WCX_TEST_DIR" <<-'END'
		import sys, importlib.metadata, wcx
		packed = sys.argv[1] + "/packed/mixed.safetensors.wcx"
		maps = open("/proc/self/maps").read()
		assert wcx.__file__.replace("__init__.py", "libwcx.so.0") in maps, maps
		assert len(wcx.load_file(packed)) == len(wcx.File(packed).tensors) > 20
		plugins = importlib.metadata.entry_points().select(group="vllm.general_plugins")
		assert [entry.load() for entry in plugins] == [wcx._accelerate.vllm_plugin]
	END
}

@test "models of torch whose weights stay packed, in floats and INT8" {
	local module

	for module in torch transformers compressed_tensors; do
		"$PYTHON" -c "import importlib.util as i, sys; sys.exit(not i.find_spec('$module'))" || skip "$module is not installed"
	done
	WCX_TEST_DIR="$BATS_TEST_TMPDIR" PYTHONPATH="$PACKAGE:$PYTHONPATH" "$PYTHON" "$BATS_TEST_DIRNAME/stream_models.py"
}
