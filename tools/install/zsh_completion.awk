# SPDX-License-Identifier: MIT
# Prints what zsh completes, from what help.awk has read: the specifications of a program's options for _arguments.
#
# Variable: mount.  1 for those of the values of -o, which are for _values.

# What an option is for, in the brackets of a specification within single quotes: the first clause of its text.
function purpose(i,    text) {
	text = joined(i)
	sub(/(;|\. |: | \().*/, "", text)
	if (choices_of(joined(i)) != "")
		text = option_name[i] substr(option_long[i], 3)
	gsub(/\\/, "\\\\", text)
	gsub(/\[/, "\\[", text)
	gsub(/\]/, "\\]", text)
	gsub(/:/, "\\:", text)
	gsub(/'/, "'\\''", text)
	return "[" text "]"
}

function value_of(i,    name) {
	name = option_choices[i] == "" ? tolower(option_value[i]) : option_name[i] substr(option_long[i], 3)
	if (option_value[i] == "")
		return ""
	if (takes_path(i))
		return ":" name ":_files"
	return ":" name ":" (option_choices[i] == "" ? " " : "(" option_choices[i] ")")
}

function render(    i, text, value) {
	for (i = 1; i <= block_count; i++) {
		if (kind[i] != "option" || option_name[i] == "..." || (option_name[i] != "") != mount)
			continue
		text = purpose(i)
		value = value_of(i)
		if (mount)
			printf "\t\t'%s%s%s'\n", option_name[i], text, value
		if (option_short[i] != "")
			printf "\t\t'%s%s%s' \\\n", option_short[i], text, value
		if (option_long[i] != "")
			printf "\t\t'%s%s%s%s' \\\n", option_long[i], value == "" ? "" : (option_optional[i] ? "=-" : "="), text,
				option_optional[i] ? ":" value : value
	}
}
