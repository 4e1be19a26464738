#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
#
# What `cmake --install` puts into place: found by compilers, man, shells and mount, the same as --help says, removed again.

bats_require_minimum_version 1.5.0

load ../fixtures/suite

setup_file() {
	suite_find || return 0 # needs no Python but for one test
	export BUILD="${WCX%/*}" PREFIX="$BATS_FILE_TMPDIR/prefix"

	cmake --install "$BUILD" --prefix "$PREFIX" >"$BATS_FILE_TMPDIR/log" 2>&1 || cat "$BATS_FILE_TMPDIR/log"
	PKG_CONFIG_PATH=$(dirname "$(find "$PREFIX" -name wcx.pc)")
	export PKG_CONFIG_PATH
}

setup() {
	suite_start
	cd "$BATS_TEST_TMPDIR" || return
}

needs_tool() {
	[ -n "$(command -v "$1")" ] || skip "$1 is not installed"
}

# The commands of wcx, one a line, sorted; those with a page of their own are all but help.
listed_commands() {
	"$WCX" --help | sed -n 's/^  wcx \([a-z]*\) .*/\1/p' | sort
}

commands() {
	listed_commands | grep -vx help
}

# Print the options in what comes in, one a line, sorted; "-o NAME" for mount options.  $1 is what option lines begin with.
option_words() {
	sed -nE "/^$1-/ { s/^ +//; s/  .*//; s/[=[].*//; s/ [A-Z]+\$//; s/, /\n/g; p }" | grep -vxF -e "-o ..." | sort
}

help_options() {
	"$@" --help | option_words " +"
}

# Compare the options of every program with what a function prints: NAME PROGRAM [COMMAND].
each_program_has() {
	local command

	[ "$(commands | wc -l)" -ge 5 ]
	[ "$(help_options "$WCXFS" | wc -l)" -ge 10 ]
	diff <(help_options "$WCX") <("$1" wcx "$WCX")
	diff <(help_options "$WCXFS") <("$1" wcxfs "$WCXFS")
	for command in $(commands); do
		diff <(help_options "$WCX" "$command") <("$1" "wcx-$command" "$WCX" "$command")
	done
}

@test "every option in --help is in the manual page, and the other way round" {
	needs_tool mandoc
	in_page() {
		mandoc -T ascii -O width=1000 "$PREFIX"/share/man/man[18]/"$1".[18] | col -bx | option_words "     "
	}
	each_program_has in_page
}

@test "manual pages have no errors, and are found by man and apropos" {
	local page name

	needs_tool mandoc
	needs_tool mandb
	for page in "$PREFIX"/share/man/man?/*; do
		name=${page##*/}
		mandoc -T lint -W warning "$page"
		[ -z "$(man --warnings "$page" 2>&1 >/dev/null)" ]
		[ "$(man -M "$PREFIX/share/man" -w "${name##*.}" "${name%.*}")" = "$(realpath "$page")" ]
	done
	[ "$(man -M "$PREFIX/share/man" -w mount.wcxfs)" ]
	mandb -q -c "$PREFIX/share/man"
	for name in $(commands); do
		apropos -M "$PREFIX/share/man" "wcx-$name" | grep -q "^wcx-$name (1) *- [a-z]"
	done
	grep -q "version, $(sed -nE 's/^# The .* format, version //p' "$FIXTURES/../../docs/format.md")\$" "$PREFIX/share/man/man5/wcx.5"
}

# Print what bash completes at the end of a line, less the "=" of options that take a value.
bash_offers() {
	bash -c '
		compopt() { :; }
		. "$1"
		COMP_LINE=$2 COMP_POINT=${#2}
		_wcx
		printf "%s\n" "${COMPREPLY[@]}"' bash "$PREFIX/share/bash-completion/completions/wcx" "$1"
}

@test "bash completes every option in --help, and no other" {
	offered() {
		if [ "$1" = wcxfs ]; then
			bash_offers "wcxfs -o " | sed 's/^/-o /'
		fi
		bash_offers "${1/-/ } -"
	}
	in_bash() {
		offered "$1" | grep -vx -- -o | sed 's/=$//' | sort
	}
	each_program_has in_bash
	diff <(listed_commands) <(bash_offers "wcx " | sort)
	diff <(commands) <(bash_offers "wcx help " | sort)
	[ -e "$PREFIX/share/bash-completion/completions/wcxfs" ]
}

@test "bash completes values, lists of mount options and paths" {
	touch x.safetensors
	[ "$(bash_offers "wcx verify --decoder=c" | sort | tr '\n' ' ')" = "cpu cuda " ]
	[ "$(bash_offers "wcxfs store mnt -o cache_size=1G,pref")" = "1G,prefetch=" ]
	[ "$(bash_offers "wcxfs store mnt -o warm=x")" = x.safetensors ]
	[ "$(bash_offers "wcxfs store mnt -o log=s" | sort | tr '\n' ' ')" = "stderr syslog " ]
	[ "$(bash_offers "wcx quantize --strategy=" | sort | tr '\n' ' ')" = "channel tensor " ]
	[ "$(bash_offers "wcx quantize --dtype=B")" = BF16 ]
	[ "$(bash_offers "wcx pack -q x")" = x.safetensors ]
}

@test "zsh completes every option in --help, and no other" {
	local lines=("wcx -" "wcxfs -" "wcxfs -o " "wcx " "wcx verify --decoder=c" "wcxfs -o cache_size=1G,pref") command

	needs_tool zsh
	for command in $(commands); do
		lines+=("wcx $command -")
	done
	timeout 60 zsh "$BATS_TEST_DIRNAME/zsh_offers.zsh" "$PREFIX/share/zsh/site-functions" "$BATS_TEST_TMPDIR" "${lines[@]}"
	offers() {
		awk -v wanted="== $1" '/^== / { found = $0 == wanted; next } found && NF' offers
	}
	in_zsh() {
		{
			if [ "$1" = wcxfs ]; then
				offers "wcxfs -o " | sed 's/^/-o /'
			fi
			offers "${1/-/ } -"
		} | grep -vx -- -o | sort
	}
	each_program_has in_zsh
	diff <(listed_commands) <(offers "wcx " | sort)
	[ "$(offers "wcx verify --decoder=c" | sort | tr '\n' ' ')" = "cpu cuda " ]
	[ "$(offers "wcxfs -o cache_size=1G,pref")" = prefetch ]
}

write_consumer() {
	cat >consumer.c <<-'END'
		#include <stdio.h>
		#include <wcx.h>

		int main(void)
		{
			struct wcx_file *file;
			char error[640];

			if (wcx_file_open("/nowhere.wcx", &file, error, sizeof error) == 0)
				return 1;
			puts(error);
			return 0;
		}
	END
	cp consumer.c consumer.cpp
}

@test "programs in C and C++ are built with pkg-config's flags and run" {
	local lib

	needs_tool pkg-config
	write_consumer
	[ "$(pkg-config --modversion wcx)" = "$("$WCX" --version | cut -d ' ' -f 2)" ]
	lib=$(pkg-config --variable=libdir wcx)
	[[ "$lib" == "$PREFIX"/* ]]
	# shellcheck disable=SC2046 # flags
	cc -Wall -Werror consumer.c -o consumer $(pkg-config --cflags --libs wcx)
	LD_LIBRARY_PATH=$lib ./consumer | grep -q "/nowhere.wcx: No such file"
	readelf -dW consumer | grep -q "NEEDED.*\[libwcx\.so\.[0-9]*\]"
	# shellcheck disable=SC2046 # flags
	c++ -Wall -Werror consumer.cpp -o consumer $(pkg-config --cflags --libs wcx)
	LD_LIBRARY_PATH=$lib ./consumer | grep -q "/nowhere.wcx: No such file"
}

@test "find_package(wcx) gives wcx::wcx, wherever the prefix is moved to" {
	write_consumer
	cat >CMakeLists.txt <<-'END'
		cmake_minimum_required(VERSION 3.25)
		project(consumer C)
		find_package(wcx 0.1 REQUIRED)
		add_executable(consumer consumer.c)
		target_link_libraries(consumer PRIVATE wcx::wcx)
	END
	cp -a "$PREFIX" moved
	cmake -S . -B build -DCMAKE_PREFIX_PATH="$PWD/moved" >log 2>&1 || { cat log; false; }
	cmake --build build >log 2>&1 || { cat log; false; }
	build/consumer | grep -q "/nowhere.wcx: No such file"
}

@test "Python finds the package, its version and its plugin, and the package finds the library" {
	local packages

	"$PYTHON" -c "import numpy" 2>/dev/null || skip "$PYTHON has no package numpy"
	packages=$(dirname "$(find "$PREFIX" -path "*/wcx/__init__.py")")/..
	cd "$packages" || return
	LD_LIBRARY_PATH=$PKG_CONFIG_PATH/.. "$PYTHON" - <<-'END'
		import importlib.metadata
		import wcx

		assert importlib.metadata.version("wcx") == wcx.__version__
		plugin, = importlib.metadata.entry_points(group="vllm.general_plugins")
		assert callable(plugin.load())
		try:
		    wcx.load_file("/nowhere.wcx")
		except FileNotFoundError as error:
		    assert "/nowhere.wcx" in str(error)
	END
}

@test "mount's helper leads to the program" {
	[ "$(realpath "$PREFIX/sbin/mount.wcxfs")" = "$(realpath "$PREFIX/bin/wcxfs")" ]
	run -1 "$PREFIX/sbin/mount.wcxfs"
	[[ "$output" == *wcxfs:* ]]
}

@test "the systemd unit starts the installed program" {
	grep -q "^ExecStart=$PREFIX/bin/wcxfs " "$PREFIX/lib/systemd/system/wcxfs@.service"
	grep -q "^Documentation=man:wcxfs(8)" "$PREFIX/lib/systemd/system/wcxfs@.service"
}

@test "no link in the installed documents is dead" {
	local doc="$PREFIX/share/doc/wcxfs" file target anchor

	grep -oE '\]\([^)]+\)' "$doc"/*.md | sed -E 's/^([^:]*):\]\(/\1 /; s/\)$//' | grep -vE ' [a-z]+://' >links
	[ "$(wc -l <links)" -ge 10 ]
	while read -r file target; do
		anchor=
		case "$target" in
		*#*) anchor=${target#*#} target=${target%%#*} ;;
		esac
		target=$doc/${target:-${file##*/}}
		[ -f "$target" ] || { echo "$file: $target"; false; }
		[ -z "$anchor" ] || sed -n 's/^##* //p' "$target" | tr 'A-Z ' 'a-z-' | tr -dc 'a-z0-9_\n-' | grep -qx -- "$anchor" ||
			{ echo "$file: $target#$anchor"; false; }
	done <links
}

@test "no installed text names the folder that it was built in" {
	(! grep -rIl --exclude-dir=doc -e "$(realpath "$BUILD")" -e "$(realpath "$BATS_TEST_DIRNAME/../..")" "$PREFIX")
}

@test "uninstall removes what was installed with DESTDIR, and nothing else" {
	export DESTDIR="$BATS_TEST_TMPDIR/root"

	mkdir -p "$DESTDIR/opt/p/share/man/man1"
	touch "$DESTDIR/opt/p/share/man/man1/other.1"
	cmake --install "$BUILD" --prefix /opt/p >log 2>&1
	[ -x "$DESTDIR/opt/p/bin/wcx" ]
	grep -qx "prefix=/opt/p" "$(find "$DESTDIR" -name wcx.pc)"
	"$PYTHON" -m compileall -q "$(dirname "$(find "$DESTDIR" -name _library.py)")" # as an import by root does
	cmake --build "$BUILD" --target uninstall >log 2>&1 || { cat log; false; }
	[ "$(find "$DESTDIR" ! -type d)" = "$DESTDIR/opt/p/share/man/man1/other.1" ]
	(! find "$DESTDIR" -type d -name "wcx*" | grep .)
}
