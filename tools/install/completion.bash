# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Completes the command lines of wcx and wcxfs in bash.

# A line per option: program and command, the option, what may follow it (words, or FILE), with tabs between them.
_wcx_table='@TABLE@'

# _wcx_add WORD... - add to COMPREPLY what begins with $word, less what bash has taken for a word of its own ("--mode=")
_wcx_add() {
	local candidate

	for candidate in "$@"; do
		[[ $candidate == "$word"* ]] || continue
		[[ $candidate != *= ]] || compopt -o nospace
		COMPREPLY+=("${candidate#"$broken_off"}")
	done
}

# _wcx_add_paths PREFIX - add the paths that begin with what $word has after PREFIX
_wcx_add_paths() {
	local path

	compopt -o filenames
	while IFS= read -r path; do
		_wcx_add "$1$path"
	done < <(compgen -f -- "${word#"$1"}")
}

# _wcx_values PREFIX VALUE... - complete the value of an option
_wcx_values() {
	local value

	for value in "${@:2}"; do
		if [[ $value == FILE ]]; then
			_wcx_add_paths "$1"
		else
			_wcx_add "$1$value"
		fi
	done
}

# The value of a list "-o NAME=VALUE,NAME=VALUE".
_wcx_mount_options() {
	local before="" last=$word

	if [[ $word == *,* ]]; then
		before=${word%,*},
		last=${word##*,}
	fi
	while IFS=$'\t' read -r program option values; do
		[[ $program == "$name" && $option == "-o "* ]] || continue
		option=${option#-o }
		if [[ $option == *= && $last == "$option"* ]]; then
			# shellcheck disable=SC2086 # a list of words
			_wcx_values "$before$option" $values
		else
			_wcx_add "$before$option"
		fi
	done <<<"$_wcx_table"
}

_wcx() {
	local line=${COMP_LINE:0:COMP_POINT} name word broken_off before program option values found=""
	local -a typed

	COMPREPLY=()
	read -ra typed <<<"$line"
	word=
	[[ $line == *[[:space:]] ]] || word=${typed[-1]}
	[[ -z $word ]] || unset 'typed[-1]'
	before=${typed[-1]:-}
	# bash breaks words at = and :, and replaces the last piece.
	broken_off=${word%"${word##*[=:]}"}
	[[ $COMP_WORDBREAKS == *=* ]] || broken_off=
	name=${typed[0]##*/}
	if [[ $name == wcx && ${#typed[@]} -gt 1 ]]; then
		name="wcx ${typed[1]}"
	fi
	if [[ $name == "wcx help" || $name == wcx && $word != -* ]]; then
		while IFS=$'\t' read -r program _; do
			[[ $program != wcx\ * || $program == "$found" ]] || _wcx_add "${program#wcx }"
			found=$program
		done <<<"$_wcx_table"
		[[ $name == "wcx help" ]] || _wcx_add help
		return
	fi
	[[ $before != -o ]] || { _wcx_mount_options; return; }
	while IFS=$'\t' read -r program option values; do
		[[ $program == "$name" && $option != "-o "* ]] || continue
		if [[ $option == --*= && $word == "$option"* ]]; then
			# shellcheck disable=SC2086 # a list of words
			_wcx_values "$option" $values
			return
		elif [[ $option == "$before" && -n $values ]]; then # -x VALUE
			# shellcheck disable=SC2086 # a list of words
			_wcx_values "" $values
			return
		elif [[ $word == -* ]]; then
			_wcx_add "$option"
		fi
	done <<<"$_wcx_table"
	[[ $word != -* || $name != wcxfs ]] || _wcx_add -o
	[[ $word == -* ]] || _wcx_add_paths ""
}

complete -F _wcx wcx wcxfs
