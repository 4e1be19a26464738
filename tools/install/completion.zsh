#compdef wcx wcxfs
# SPDX-License-Identifier: MIT
# Completes the command lines of wcx and wcxfs in zsh.

_wcx_command() {
	case $words[1] in
@ARGUMENTS@
	help)
		_wcx_commands
		;;
	*)
		_files
		;;
	esac
}

_wcx_commands() {
	local -a commands=(
@COMMANDS@
	)
	_describe command commands
}

_wcxfs_options() {
	local -a options=(
@MOUNT_OPTIONS@
	)
	_values -s , 'mount option' $options
}

case $service in
wcxfs)
	_arguments -S \
@WCXFS@
		'*-o[mount options]:mount option:_wcxfs_options' \
		'1:store:_files -/' '2:mount point:_files -/'
	;;
*)
	local curcontext=$curcontext state line ret=1
	typeset -A opt_args
	_arguments -C \
@WCX@
		'1:command:_wcx_commands' '*::argument:_wcx_command' && ret=0
	return ret
	;;
esac
