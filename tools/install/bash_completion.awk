# SPDX-License-Identifier: MIT
# Prints what bash completes, from what help.awk has read: lines for the tables of completion.bash.
#
# Variable: program ("wcxfs", "wcx" or "wcx@pack").  Each line is one option: the program, the option ("--mode=", "-f", or
# "-o cache_size=") and what may follow: words, or FILE where a path may.

function print_word(word, i) {
	print program "\t" word "\t" takes(i)
}

# What may follow the option's "=".
function takes(i) {
	return (takes_path(i) ? "FILE " : "") option_choices[i]
}

function render(    i, equals) {
	sub(/@/, " ", program)
	for (i = 1; i <= block_count; i++) {
		if (kind[i] != "option" || option_name[i] == "...")
			continue
		equals = option_value[i] != "" && !option_optional[i] ? "=" : ""
		if (option_name[i] != "")
			print_word("-o " option_name[i] equals, i)
		if (option_short[i] != "")
			print_word(option_short[i], i)
		if (option_long[i] != "")
			print_word(option_long[i] equals, i)
	}
}
