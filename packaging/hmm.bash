# bash completion for hmm(1). The words are the command's own: it is asked for them.

_hmm() {
    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]-} index words
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "$(hmm help --words 2>/dev/null)" -- "$word")
        return
    fi
    # Behind -- a program begins, whose own completion knows more.
    for ((index = 2; index < COMP_CWORD; index++)); do
        if [[ ${COMP_WORDS[index]} == -- ]]; then
            if declare -F _command_offset >/dev/null; then
                _command_offset $((index + 1))
            else
                mapfile -t COMPREPLY < <(compgen -c -f -- "$word")
            fi
            return
        fi
    done
    case $command,$word in
    help,*) words=$(hmm help --words 2>/dev/null) ;;
    *,-*) words="$(hmm help --words "$command" 2>/dev/null) --" ;;
    top,*) words=$(cd /proc && echo [0-9]*) ;;
    stat,* | explain,* | map,* | check,*) words="$(compgen -f -- "$word") $(cd /proc && echo [0-9]*) --" ;;
    *) words=-- ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

complete -F _hmm hmm
