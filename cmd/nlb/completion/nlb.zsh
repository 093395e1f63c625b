#compdef nlb
# Completion of nlb for zsh: source <(nlb completion zsh), after compinit; or a
# file _nlb in a folder of $fpath.
_nlb() {
    local line
    local -a candidates
    for line in "${(@f)$("${words[1]/#\~/$HOME}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        if [[ $line == :files ]]; then
            _files -g '*.(yaml|yml)'
        elif [[ -n $line ]]; then
            line=${line//:/\\:}
            candidates+=("${line/$'\t'/:}")
        fi
    done
    (( $#candidates )) && _describe -V nlb candidates
}
if [[ $funcstack[1] == _nlb ]]; then
    _nlb "$@"
else
    compdef _nlb nlb
fi
