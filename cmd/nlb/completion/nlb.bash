# Completion of nlb for bash: source <(nlb completion bash)
_nlb() {
    local word=${COMP_WORDS[COMP_CWORD]} line name
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == :files ]]; then
            compopt -o filenames
            while IFS= read -r name; do
                [[ -d $name || $name == *.yaml || $name == *.yml ]] && COMPREPLY+=("$name")
            done < <(compgen -f -- "$word")
        else
            COMPREPLY+=("${line%%$'\t'*}")
        fi
    done < <("${COMP_WORDS[0]/#\~/$HOME}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _nlb nlb
