# Completion of nlb for fish: nlb completion fish | source
function __nlb_complete
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    for line in ($words[1] __complete $words[2..-1] "$word" 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path (string unescape -- "$word") | string match -r '.*(?:/|\.ya?ml)(?:\t.*)?$'
        else
            echo $line
        end
    end
end
complete -c nlb -f -a '(__nlb_complete)'
