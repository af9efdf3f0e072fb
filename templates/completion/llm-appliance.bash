# Made by llm-appliance. Do not edit.
_llm_appliance() {
    local IFS=$'\n'
    mapfile -t COMPREPLY < <(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _LLM_APPLIANCE_COMPLETE=complete_bash "$1")
}
complete -o default -F _llm_appliance llm-appliance
