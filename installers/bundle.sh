#!/bin/sh
# Installs a bundle of llm-appliance on a machine without a network that has nothing but a minimal system.
# Made by `llm-appliance bundle create`, which puts the bundle's values in here; it belongs beside the bundle.
set -eu

bundle='' name='' key='' arch='' os='' os_version='' python='' docker='' room=0 more=0
files() { :; }
# @values@

usage() {
    cat <<TEXT
Usage: $0 [--prefix DIR] [OPTIONS of \`llm-appliance bundle install\`]

  --prefix DIR   put everything below DIR; no root needed where Python $python is there
  --packages     install first what \`bundle create --package\` put in: Docker, a driver
  --check        only check the files that the installation starts with
  -h, --help     show this

Everything else is handed to \`llm-appliance bundle install\`, for example --allow-unsigned, --dry-run.
TEXT
}

say() { printf '%s\n' "==> $*" >&2; }

fail() { # CODE MESSAGE [HINT]
    printf 'error: %s\n' "$2" >&2
    [ -z "${3:-}" ] || printf 'hint:  %s\n' "$3" >&2
    exit "$1"
}

cut_out() { # FILE:SKIP:BYTES ... on stdout; names hold no colon
    for piece in "$@"; do
        bytes=${piece##*:}
        rest=${piece%:*}
        [ -f "$here/${rest%:*}" ] || fail 5 "$here/${rest%:*} is missing" "put all parts of the bundle beside this script"
        tail -c "+$((${rest##*:} + 1))" "$here/${rest%:*}" 2>/dev/null | head -c "$bytes"
    done
}

# Every file that anything is run from is cut out and checked before the first of them is used.
unpack() {
    mkdir -p "$work/wheel" "$work/deb" "$work/appliance" "$work/installer"
    [ -z "$packages" ] || mkdir -p "$work/package"
    # The list is no input of the loop: what is run in there must not eat it.
    files >"$work/files"
    while read -r kind name digest pieces <&3; do
        [ -d "$work/$kind" ] || continue
        # shellcheck disable=SC2086 # several words
        cut_out $pieces >"$work/$kind/$name" || fail 6 "$work/$kind/$name cannot be written"
        printf '%s  %s\n' "$digest" "$work/$kind/$name" >>"$work/digests"
    done 3<"$work/files"
    sha256sum --quiet --strict -c "$work/digests" >"$work/damaged" 2>/dev/null ||
        fail 5 "damaged in $bundle: $(sed -n 's|.*/\([^/]*\): FAILED.*|\1|p' "$work/damaged" | tr '\n' ' ')" "copy it again from where it was made"
}

# What is there is looked at closely later, by the appliance.
runs_containers() {
    docker compose version >/dev/null 2>&1 && return
    podman --url unix:///run/podman/podman.sock version >/dev/null 2>&1 || return
    for program in docker-compose /usr/libexec/docker/cli-plugins/docker-compose \
        /usr/lib/docker/cli-plugins/docker-compose /usr/local/lib/docker/cli-plugins/docker-compose; do
        ! command -v "$program" >/dev/null || return 0
    done
    return 1
}

fits() {
    [ "$(uname -s)" = Linux ] || fail 4 "Linux is needed, this is $(uname -s)"
    [ "$(uname -m)" = "$arch" ] || fail 4 "this bundle is for $arch, this machine is $(uname -m)"
    # shellcheck source=/dev/null
    . /etc/os-release
    [ "${ID:-} ${VERSION_ID:-}" = "$os $os_version" ] ||
        fail 4 "this bundle is for $os $os_version, this machine runs ${ID:-an unknown system} ${VERSION_ID:-}" "make one on a machine like this"
    brings=
    ! files | grep -q '^package ' || brings=1
    [ -z "$packages" ] || [ -n "$brings" ] || fail 2 "no packages were put into this bundle" "leave --packages out"
    [ -z "$docker" ] || [ -n "$packages" ] || runs_containers ||
        fail 4 "this bundle's engines are container images, and Docker with Compose is not here, nor Podman's socket with docker-compose" \
            "${brings:+install what it brings along: $0 --packages; or }install it first, or take a bundle made without --runtime compose"
    [ -n "$key" ] || case " $* " in
        *" --allow-unsigned "*) ;;
        *) fail 5 "this bundle is not signed" "take it all the same: --allow-unsigned" ;;
    esac
}

main() {
    case " $* " in *" -h "* | *" --help "*) usage; exit 0 ;; esac
    here=$(cd "$(dirname "$0")" && pwd)
    packages=
    for word in "$@"; do
        shift
        [ "$word" != --packages ] || { packages=1; continue; }
        set -- "$@" "$word"
    done
    fits "$@"
    umask 022
    home=/opt/llm-appliance
    previous=
    for word in "$@"; do
        [ "$previous" != --prefix ] || home=$word
        case $word in --prefix=*) home=${word#--prefix=} ;; esac
        previous=$word
    done
    # Not below /tmp, where programs may be forbidden to start and room be short.
    mkdir -p "$home" || fail 4 "$home cannot be made" "sudo $0"
    work=$(mktemp -d "$home/.bundle.XXXXXX") || fail 4 "$home cannot be written to" "sudo $0"
    [ -z "$packages" ] || room=$((room + more))
    free=$(df -Pk "$home" | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4)
    [ "$free" -ge "$room" ] || { rm -rf "$work"; fail 4 "$home: $free KiB free, $room KiB needed" "make room there"; }
    trap 'rm -rf "$work"; [ -d "$home/venv" ] || rm -f "$home/.install.lock"; rmdir "$home" 2>/dev/null || :' EXIT
    trap 'exit 130' HUP INT TERM
    say "$name: checking what the installation starts with"
    unpack
    case " $* " in *" --check "*) say "intact"; exit 0 ;; esac
    [ -z "$key" ] || set -- --first-key "$key" "$@"
    sh "$work/installer/install.sh" --from "$work" --bundle "$here/$bundle" "$@"
}

main "$@"
