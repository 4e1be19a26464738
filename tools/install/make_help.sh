#!/bin/sh
# SPDX-License-Identifier: MIT
#
# make_help.sh WCX WCXFS OUT - make manual pages and completions from what the programs print with --help
#
# OUT gets man/PAGE.SECTION, bash/wcx and zsh/_wcx.  docs/man/PAGE.mdoc has what a page says beyond the help, and
# docs/man/PAGE.SECTION are pages that are written by hand.  SOURCE_DATE_EPOCH gives the pages' date, as everywhere.
set -eu
wcx=$1 wcxfs=$2 out=$3
here=$(cd "$(dirname "$0")" && pwd)
pages=$here/../../docs/man
version=$("$wcx" --version | cut -d ' ' -f 2)
LC_ALL=C
export LC_ALL
date=$(date -u ${SOURCE_DATE_EPOCH:+-d "@$SOURCE_DATE_EPOCH"} '+%B %e, %Y' | tr -s ' ')
listed=$("$wcx" --help | sed -n 's/^  wcx \([a-z][a-z]*\) .*/\1/p')
commands=$(echo "$listed" | grep -vx help)

# page NAME SECTION SUMMARY ALSO PROGRAM... - make a page from the help of a program
page() {
	name=$1 section=$2 summary=$3 also=$4
	shift 4
	more=
	[ ! -f "$pages/$name.mdoc" ] || more=$pages/$name.mdoc
	"$@" --help | awk -v page="$name" -v section="$section" -v date="$date" -v version="$version" -v summary="$summary" \
		-v also="$also" -v more="$more" -f "$here/help.awk" -f "$here/man_page.awk" >"$out/man/$name.$section"
}

# options AWK VARIABLE=VALUE -- PROGRAM... - what a completion says about the options of a program
options() {
	script=$1 variable=$2
	shift 3
	"$@" --help | awk -v "$variable" -f "$here/help.awk" -f "$here/$script"
}

# Replaces the line of a file that consists of @NAME@ with another file.
put() {
	awk -v mark="@$2@" -v with="$3" '$0 == mark { while ((getline text < with) > 0) print text; next } { print }' "$1"
}

rm -rf "$out"
mkdir -p "$out/man" "$out/bash" "$out/zsh"

for command in $commands; do
	summary=$("$wcx" --help | sed -n "s/^  wcx $command .*  //p")
	page "wcx-$command" 1 "$summary" "wcx.1 wcx.5 wcxfs.8" "$wcx" "$command"
done
also=$(echo "$commands" | sort | sed 's/.*/wcx-&.1/' | tr '\n' ' ')
page wcx 1 "compress safetensors files losslessly" "$also wcx.5 wcxfs.8" "$wcx"
page wcxfs 8 "mount a store of packed safetensors files" "fusermount3.1 wcx.1 wcx.5 mount.fuse3.8" "$wcxfs"
ln -s wcxfs.8 "$out/man/mount.wcxfs.8"
for file in "$pages"/*.[1-8]; do
	sed "s/@DATE@/$date/; s/@VERSION@/$version/" "$file" >"$out/man/${file##*/}"
done

table=$out/table
{
	options bash_completion.awk program=wcx -- "$wcx"
	options bash_completion.awk program=wcxfs -- "$wcxfs"
	for command in $commands; do
		options bash_completion.awk program=wcx@"$command" -- "$wcx" "$command"
	done
} >"$table"
awk -v with="$table" '/@TABLE@/ {
	sub(/@TABLE@.*/, "")
	while ((getline text < with) > 0) {
		print $0 text
		$0 = ""
	}
	print "'\''"
	next
} { print }' "$here/completion.bash" >"$out/bash/wcx"
ln -s wcx "$out/bash/wcxfs"

{
	for command in $listed; do
		summary=$("$wcx" --help | sed -n "s/^  wcx $command .*  //p")
		printf "\t\t'%s:%s'\n" "$command" "$summary"
	done
} >"$table"
put "$here/completion.zsh" COMMANDS "$table" >"$out/zsh/_wcx"
{
	for command in $commands; do
		printf '\t%s)\n\t\t_arguments -S \\\n' "$command"
		options zsh_completion.awk mount=0 -- "$wcx" "$command"
		printf "\t\t'*:file:_files'\n\t\t;;\n"
	done
} >"$table"
put "$out/zsh/_wcx" ARGUMENTS "$table" >"$out/zsh/next"
options zsh_completion.awk mount=1 -- "$wcxfs" >"$table"
put "$out/zsh/next" MOUNT_OPTIONS "$table" >"$out/zsh/_wcx"
options zsh_completion.awk mount=0 -- "$wcxfs" >"$table"
put "$out/zsh/_wcx" WCXFS "$table" >"$out/zsh/next"
options zsh_completion.awk mount=0 -- "$wcx" >"$table"
put "$out/zsh/next" WCX "$table" >"$out/zsh/_wcx"
rm "$table" "$out/zsh/next"
