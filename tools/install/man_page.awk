# SPDX-License-Identifier: MIT
# Prints a manual page in mdoc(7) from what help.awk has read.
#
# Variables: page (wcx-pack), section, date, summary (the line of NAME), also (pages for SEE ALSO, "wcx.1 wcxfs.8"), and
# more: a file with sections that the help has not, which go in before EXIT STATUS.
# Lines "  wcx COMMAND ARGUMENTS  summary" become a list of the commands' pages.

function escape(text) {
	gsub(/\\/, "\\e", text)
	text = " " text
	while (match(text, /[ `'"(=|[]--?[A-Za-z]/)) # minus signs, which can be copied, and not hyphens
		text = substr(text, 1, RSTART) "\001" substr(text, RSTART + 2)
	while (match(text, /\001-/))
		text = substr(text, 1, RSTART) "\001" substr(text, RSTART + 2)
	gsub(/\001/, "\\-", text)
	text = substr(text, 2)
	return text ~ /^[.']/ ? "\\&" text : text
}

# A line of text, broken at 80 characters and, as mdoc wants it, after each sentence.
function print_text(text,    words, count, i, out) {
	count = split(text, words, / +/)
	for (i = 1; i <= count; i++) {
		if (out != "" && (length(out) + length(words[i]) > 76 || ends_sentence)) {
			print escape(out)
			out = ""
		}
		out = out (out == "" ? "" : " ") words[i]
		ends_sentence = words[i] ~ /[A-Za-z0-9)'"][.]$/ && words[i] !~ /^(e\.g|i\.e|etc)\.$/
	}
	ends_sentence = 0
	if (out != "")
		print escape(out)
}

function print_usage(text,    words, count, i, name) {
	count = split(text, words, " ")
	name = words[1]
	i = 2
	if (words[2] ~ /^[a-z]+$/)
		name = name " " words[i++]
	printf ".Nm %s\n", name
	text = ""
	for (; i <= count; i++)
		text = text (text == "" ? "" : " ") words[i]
	text = escape(text)
	gsub(/[A-Z][A-Z_]+(\.[a-z]+)?/, "\\fI&\\fR", text)
	if (text != "")
		print text
}

function print_option(i,    head, value) {
	if (option_value[i] != "")
		value = " Ns = Ns Ar " option_value[i]
	if (option_optional[i])
		value = " Ns Oo = Ns Ar " option_value[i] " Oc"
	if (option_name[i] != "")
		head = "Fl o Cm " option_name[i] value
	else {
		head = option_short[i] == "" ? "" : "Fl " substr(option_short[i], 2)
		if (option_long[i] == "")
			head = head (option_value[i] == "" ? "" : " Ar " option_value[i])
		else
			head = head (head == "" ? "" : " , ") "Fl -" substr(option_long[i], 3) value
	}
	print ".It " head
	print_text(joined(i))
}

function is_command_list(i) {
	return page == "wcx" && line[i, 1] ~ /^wcx [a-z]+ /
}

function print_commands(i,    j, name, text) {
	print ".Bl -tag -width wcx-quantize(1)"
	for (j = 1; j <= line_count[i]; j++) {
		split(line[i, j], name, " ")
		text = line[i, j]
		sub(/.*  /, "", text)
		printf name[2] == "help" ? ".It Cm wcx %s\n%s\n" : ".It Xr wcx-%s 1\n%s\n", name[2], escape(text)
	}
	print ".El"
}

function print_literal(i,    j) {
	print ".Bd -literal -offset indent"
	for (j = 1; j <= line_count[i]; j++)
		print escape(line[i, j])
	print ".Ed"
}

function end_list() {
	if (in_list)
		print ".El"
	in_list = 0
}

function print_see_also(    pages, count, i) {
	count = split(also, pages, " ")
	print ".Sh SEE ALSO"
	for (i = 1; i <= count; i++) {
		match(pages[i], /\.[0-9]$/)
		printf ".Xr %s %s%s\n", substr(pages[i], 1, RSTART - 1), substr(pages[i], RSTART + 1), i < count ? " ," : ""
	}
}

# The body: what is neither usage, examples nor exit codes.
function print_description(    i, part, heading) {
	print ".Sh DESCRIPTION"
	for (i = 1; i <= block_count; i++) {
		if (kind[i] == "heading")
			heading = line[i, 1]
		if (kind[i] == "usage" || kind[i] == "exit" || heading ~ /^Examples?$/)
			continue
		if (kind[i] != "option")
			end_list()
		if (kind[i] == "heading" && heading != "Options")
			printf ".Ss %s\n", escape(heading)
		else if (kind[i] == "text") {
			if (part++)
				print ".Pp"
			print_text(joined(i))
		} else if (kind[i] == "literal") {
			if (is_command_list(i))
				print_commands(i)
			else
				print_literal(i)
		} else if (kind[i] == "option") {
			if (!in_list++) {
				print (part++ ? ".Pp\n" : "") "The options are:"
				print ".Bl -tag -width Ds"
			}
			print_option(i)
		}
	}
	end_list()
}

function print_examples(    i, heading, printed) {
	for (i = 1; i <= block_count; i++) {
		if (kind[i] == "heading")
			heading = line[i, 1]
		if (kind[i] == "exit")
			heading = ""
		if (kind[i] == "literal" && heading ~ /^Examples?$/) {
			if (!printed++)
				print ".Sh EXAMPLES"
			print_literal(i)
		}
	}
}

# "0 success, 1 failure (why), 2 invalid command line." as a list; sentences may follow
function print_exit_status(text,    at, rest) {
	print ".Sh EXIT STATUS"
	if (text !~ /^0 /) {
		print_text(text)
		return
	}
	if (at = index(text, ".  ")) {
		rest = substr(text, at + 3)
		text = substr(text, 1, at)
	}
	sub(/[.]$/, "", text)
	print ".Bl -tag -width Ds"
	while (at = match(text, /[,;] [0-9]+ /)) {
		print_status(substr(text, 1, at - 1))
		text = substr(text, at + 2)
	}
	print_status(text)
	print ".El"
	if (rest) {
		print ".Pp"
		print_text(rest)
	}
}

function print_status(text) {
	print ".It " substr(text, 1, index(text, " ") - 1)
	print_text(substr(text, index(text, " ") + 1))
}

function render(    i, j, text) {
	printf ".\\\" Made from --help by tools/install/man_page.awk.\n.Dd %s\n.Dt %s %s\n.Os wcxfs %s\n", date, toupper(page),
		section, version
	printf ".Sh NAME\n.Nm %s\n.Nd %s\n.Sh SYNOPSIS\n", page, summary
	for (i = 1; i <= block_count; i++)
		if (kind[i] == "usage")
			for (j = 1; j <= line_count[i]; j++)
				print_usage(line[i, j])
	print_description()
	while (more != "" && (getline text < more) > 0)
		print text
	for (i = 1; i <= block_count; i++)
		if (kind[i] == "exit")
			print_exit_status(joined(i))
	print_examples()
	print_see_also()
}
