# SPDX-License-Identifier: MIT
# Reads the --help text of a program of ours; what prints a page or a completion from it (man_page.awk and others) comes
# with a second -f and provides the function render().
#
# The form of a help text:
#
#   usage: PROGRAM ARGUMENTS          until an empty line
#   text                              a paragraph
#     -f, --force          text       an option; its text may go on in the next lines, indented by more than 4
#         --mode=a|b       text       an option whose value is a or b
#     -o NAME=VALUE        text       a mount option
#   Examples:                         a heading; below it, indented lines are literal
#   Exit codes: text
#
# Fills, for the blocks 1 to block_count: kind[i] (usage, text, option, heading, literal, exit), line_count[i] and line[i, j].
# An option also has option_short[i] ("-f"), option_long[i] ("--force"), option_name[i] (of -o), option_value[i] (what
# follows "="), option_optional[i] (it may be left out) and option_choices[i] (the values that it may have, with spaces
# between them).

function add_block(what) {
	kind[++block_count] = what
	line_count[block_count] = 0
}

function add_line(text) {
	line[block_count, ++line_count[block_count]] = text
}

# "-j, --threads=N", "-o cache_size=BYTES" or "-f"
function read_option(text,    parts, count, i, at) {
	count = split(text, parts, /, /)
	for (i = 1; i <= count; i++) {
		at = index(parts[i], "=")
		if (at) {
			option_value[block_count] = substr(parts[i], at + 1)
			parts[i] = substr(parts[i], 1, at - 1)
			if (parts[i] ~ /\[$/) {
				option_optional[block_count] = 1
				parts[i] = substr(parts[i], 1, length(parts[i]) - 1)
				sub(/\]$/, "", option_value[block_count])
			}
		}
		if (parts[i] ~ /^--/)
			option_long[block_count] = parts[i]
		else if (parts[i] ~ /^-o /)
			option_name[block_count] = substr(parts[i], 4)
		else {
			if (index(parts[i], " ")) { # "-j N"
				option_value[block_count] = substr(parts[i], index(parts[i], " ") + 1)
				sub(/ .*/, "", parts[i])
			}
			option_short[block_count] = parts[i]
		}
	}
	if (index(option_value[block_count], "|")) {
		count = split(option_value[block_count], parts, /\|/)
		for (i = 1; i <= count; i++)
			if (parts[i] ~ /[a-z0-9]/) # others stand for something, such as FILE
				option_choices[block_count] = option_choices[block_count] (option_choices[block_count] == "" ? "" : " ") parts[i]
	}
}

# The values that a text lists first: "auto (default), cpu or cuda", or with what they mean: "one: text; or two: text".
function choices_of(text,    parts, count, i, found) {
	count = split(text, parts, /; (or )?/)
	for (i = 1; i <= count && match(parts[i], /^[a-z][a-z0-9_-]*(:| \(default\):|$)/); i++) {
		sub(/( \(default\))?(:.*)?$/, "", parts[i])
		found = found (i > 1 ? " " : "") parts[i]
	}
	if (count > 1 && i > count)
		return found
	found = ""
	sub(/[;:.].*/, "", text)
	gsub(/ *\(default\)/, "", text)
	gsub(/,? or /, ", ", text)
	count = split(text, parts, /, */)
	for (i = 1; i <= count; i++) {
		if (parts[i] !~ /^[A-Za-z][A-Za-z0-9_-]*$/)
			return ""
		found = found (i > 1 ? " " : "") parts[i]
	}
	return count > 1 ? found : ""
}

# The lines of a block as one.
function joined(i,    j, text) {
	for (j = 1; j <= line_count[i]; j++)
		text = text (j > 1 ? " " : "") line[i, j]
	return text
}

# Whether an option takes a path.
function takes_path(i) {
	return option_value[i] ~ /(^|[|])(FILE|PATH|DIR|DIRECTORY|STORE|MOUNT|MOUNTPOINT|MODEL_DIR|OUT_DIR)([|,.]|$)/
}

/^$/ {
	if (!in_examples)
		within = ""
	next
}

/^usage: / {
	add_block("usage")
	add_line(substr($0, 8))
	within = "usage"
	next
}

within == "usage" {
	sub(/^ +(or: +)?/, "")
	add_line($0)
	next
}

/^Exit codes?:/ {
	in_examples = 0
	add_block("exit")
	sub(/^Exit codes?: */, "")
	if ($0 != "")
		add_line($0)
	within = "exit"
	next
}

within == "exit" {
	sub(/^ +/, "")
	add_line($0)
	next
}

/^[A-Z][^.]*:$/ {
	add_block("heading")
	add_line(substr($0, 1, length($0) - 1))
	in_examples = /^Examples?:$/
	within = ""
	next
}

/^ +-/ && !in_examples {
	sub(/^ +/, "")
	add_block("option")
	at = match($0, /  +/)
	read_option(at ? substr($0, 1, at - 1) : $0)
	if (at)
		add_line(substr($0, RSTART + RLENGTH))
	within = "option"
	next
}

within == "option" && /^     / {
	sub(/^ +/, "")
	add_line($0)
	next
}

/^  / {
	if (within != "literal")
		add_block("literal")
	add_line(substr($0, 3))
	within = "literal"
	next
}

{
	in_examples = 0
	if (within != "text")
		add_block("text")
	add_line($0)
	within = "text"
}

END {
	for (i = 1; i <= block_count; i++)
		if (kind[i] == "option" && option_value[i] != "" && option_choices[i] == "")
			option_choices[i] = choices_of(joined(i))
	render()
}
