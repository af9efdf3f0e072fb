# Made by llm-appliance. Do not edit.
function __llm_appliance
    env _LLM_APPLIANCE_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=$argv[1] _TYPER_COMPLETE_ARGS=(commandline -cp) llm-appliance
end
complete --command llm-appliance --no-files --arguments "(__llm_appliance get-args)" --condition "__llm_appliance is-args"
