#!/usr/bin/env zsh
# SPDX-License-Identifier: MIT
#
# zsh_offers.zsh DIR SCRATCH LINE... - write what zsh completes at the end of each line, with the functions in DIR, to
# SCRATCH/offers: the line after "== ", then a word a line
zmodload zsh/zpty
export OFFERS=$2/offers
: >$OFFERS
# compadd is where all completions end up; calls with -A, -D or -O only try what would match.
cat >$2/rc.zsh <<END
fpath=(${(q)1} \$fpath)
autoload -Uz compinit
compinit -D -u
compadd() {
	local -a offered
	if (( ! \${argv[(I)-[ADO]]} )); then
		builtin compadd -A offered "\$@"
		print -rl -- \$offered >>\$OFFERS
	fi
	builtin compadd "\$@"
}
offer() {
	_main_complete
	print COMPLETED
}
zle -C offer list-choices offer
bindkey '^I' offer
END
zpty shell 'PS1= TERM=dumb zsh -f -i'
zpty -w shell ". ${(q)2}/rc.zsh; print RE''ADY"
zpty -r shell output '*READY*'
for line in "${@:3}"; do
	print -r -- "== $line" >>$OFFERS
	zpty -w -n shell "$line"$'\t'
	zpty -r shell output '*COMPLETED*'
	zpty -w -n shell $'\x15'
done
zpty -d shell
