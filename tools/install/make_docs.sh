#!/bin/sh
# SPDX-License-Identifier: MIT
#
# make_docs.sh OUT - copy the documents for users into one directory
#
# Links between them are made to fit; links to what is not installed become plain text.
set -eu
out=$1
cd "$(dirname "$0")/../.."
# Not for those who change the code.
docs="$(find docs -maxdepth 1 -type f ! -name contributing.md ! -name design.md ! -name testing.md | sort) tools/python/wcx_python.md"

rm -rf "$out"
mkdir -p "$out"
for file in README.md LICENSE $docs; do
	case $file in
	*.md) # shellcheck disable=SC2086 # several arguments
		awk -v known="README.md LICENSE $(echo "$docs" | tr "\n" " ")" '
		BEGIN {
			count = split(known, names, " ")
			for (i = 1; i <= count; i++)
				installed[names[i]] = 1
			directory = ARGV[1]
			if (!sub(/[^\/]*$/, "", directory))
				directory = ""
		}
		# The path of a link, from the top of the tree.
		function resolve(path) {
			path = directory path
			while (sub(/[^\/.]+\/\.\.\//, "", path))
				continue
			return path
		}
		{
			out = ""
			while (match($0, /\]\([^)]*\)/)) {
				target = substr($0, RSTART + 2, RLENGTH - 3)
				before = substr($0, 1, RSTART - 1)
				after = substr($0, RSTART + RLENGTH)
				path = target
				sub(/#.*/, "", path)
				if (path != "" && path !~ /^[a-z]+:/) {
					path = resolve(path)
					if (path in installed) {
						sub(/.*\//, "", path)
						target = path (index(target, "#") ? substr(target, index(target, "#")) : "")
					} else
						target = ""
				}
				if (target != "")
					out = out before "](" target ")"
				else { # the last "[", or "![", goes too
					at = 0
					for (i = 1; i <= length(before); i++)
						if (substr(before, i, 1) == "[")
							at = i
					out = out substr(before, 1, at - 1) substr(before, at + 1)
				}
				$0 = after
			}
			print out $0
		}' "$file" >"$out/${file##*/}"
		;;
	*) cp "$file" "$out/" ;;
	esac
done
