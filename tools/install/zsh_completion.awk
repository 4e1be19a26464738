# SPDX-License-Identifier: MIT
# Prints what zsh completes, from what help.awk has read: the specifications of a program's options for _arguments.
#
# Variable: mount.  1 for those of the values of -o, which are for _values.

# What an option is for, in the brackets of a specification within single quotes: the first clause of its text.
function purpose(i,    text, j) {
	for (j = 1; j <= line_count[i]; j++)
		text = text (j > 1 ? " " : "") line[i, j]
	sub(/(;|\. |: | \().*/, "", text)
	if (choices_of(line[i, 1]) != "")
		text = option_name[i] substr(option_long[i], 3)
	gsub(/\\/, "\\\\", text)
	gsub(/\[/, "\\[", text)
	gsub(/\]/, "\\]", text)
	gsub(/:/, "\\:", text)
	gsub(/'/, "'\\''", text)
	return "[" text "]"
}

function value_of(i,    words, count, j, choices) {
	if (option_value[i] == "")
		return ""
	count = split(option_choices[i], words, " ")
	for (j = 1; j <= count; j++)
		if (words[j] ~ /^[a-z0-9]/)
			choices = choices (choices == "" ? "" : " ") words[j]
	if (choices != "")
		return ":" tolower(option_name[i] substr(option_long[i], 3)) ":(" choices ")"
	if (option_value[i] ~ /(^|[|])(FILE|PATH|DIR|DIRECTORY|STORE|MOUNT|MOUNTPOINT|MODEL_DIR|OUT_DIR)([|,.]|$)/)
		return ":" tolower(option_value[i]) ":_files"
	return ":" tolower(option_value[i]) ": "
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
