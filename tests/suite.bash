# SPDX-License-Identifier: MIT
# What every suite begins with: where the programs are, and whether all is there that its tests need.
#
# WCX_BUILD  where wcx and wcxfs were built; by default build/ beside tests/
# PYTHON     a Python with the packages that the suite names; by default python3

# suite_find MODULE... - to be called by setup_file, which returns when it fails: then suite_start has the tests skipped
suite_find() {
	local build="${WCX_BUILD:-$BATS_TEST_DIRNAME/../build}" module

	export WCX="$build/wcx" WCXFS="$build/wcxfs" PYTHON="${PYTHON:-python3}" PYTHONDONTWRITEBYTECODE=1 SUITE_LACKS=
	for module in "$@"; do
		"$PYTHON" -c "import $module" 2>/dev/null || SUITE_LACKS="$PYTHON has no package $module"
	done
	[ -z "$SUITE_LACKS" ] || return 1
	test -x "$WCX"
}

# suite_start - to be called first by setup
suite_start() {
	[ -z "$SUITE_LACKS" ] || skip "$SUITE_LACKS"
}
