#!/bin/sh
# The end of `llm-appliance uninstall`: removes the program itself, which cannot remove what it runs from.
# Called as: uninstall.sh HOME LINK
set -u

main() {
    [ $# -eq 2 ] || { echo "sudo llm-appliance uninstall" >&2; exit 2; }
    home=$1 link=$2
    # Only what install.sh put there: HOME may be a prefix with models and the operator's own files in it.
    case $(readlink "$link" 2>/dev/null) in "$home"/venv/*) rm -f "$link" ;; esac
    case $link in "$home"/*) rmdir "${link%/*}" 2>/dev/null ;; esac
    packages=
    [ ! -f "$home/packages" ] || packages=$(sort -u "$home/packages" | tr '\n' ' ')
    rm -rf "$home/venv" "$home/.venv.old" "$home/.venv.new" "$home/packages" "$home/.install.lock" "$home"/.install.?????? "$home"/.bundle.??????
    rmdir "$home" 2>/dev/null
    if [ -n "$packages" ]; then
        # shellcheck disable=SC2086 # one word for each package
        dpkg --purge $packages >/dev/null 2>&1 || echo "left behind, for other packages need them now: $packages" >&2
    fi
    exit 0
}

main "$@"
