#!/bin/sh
# Installs llm-appliance and what it needs to start, then lets it install itself: engine, gateway, built-in model.
# As root for the whole system, or as anybody with --prefix DIR and nothing outside that directory.
set -eu

usage() {
    cat <<'TEXT'
Usage: install.sh [--prefix DIR] [--offline] [--program-only] [OPTIONS of `llm-appliance install`]

  --prefix DIR     put everything below DIR; no root needed, nothing outside DIR is touched
  --offline        reach no network; only what is there already is used
  --program-only   make the program, and install nothing with it yet
  -h, --help       show this

Everything else is handed to `llm-appliance install`, for example --listen 127.0.0.1:9000.
The script beside a bundle calls it with --from DIR --bundle FILE: all that is needed lies in DIR, no network is reached,
and `llm-appliance bundle install FILE` follows. The package calls it with --from DIR --packaged: it is apt that takes the
program away again, and its command is in /usr/bin.
TEXT
}

say() { printf '%s\n' "==> $*" >&2; }

fail() { # CODE MESSAGE [HINT]
    printf 'error: %s\n' "$2" >&2
    [ -z "${3:-}" ] || printf 'hint:  %s\n' "$3" >&2
    exit "$1"
}

# apt with lists and downloads of its own: the system's stay as they were found.
private_apt() {
    mkdir -p "$work/lists/partial" "$work/archives/partial"
    apt-get -q -o Dir::State="$work" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Log="$work" \
        -o Dir::State::lists="$work/lists" -o Dir::Cache="$work" -o Dir::Cache::archives="$work/archives" \
        -o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Sandbox::User=root \
        -o APT::Update::Error-Mode=any -o APT::Update::Post-Invoke= -o APT::Update::Post-Invoke-Success= "$@"
}

fetch_lists() {
    [ -z "$from" ] || fail 5 "$1 is not in $from"
    [ -z "$offline" ] || fail 5 "$1 is not here, and --offline forbids to fetch it"
    command -v apt-get >/dev/null 2>&1 || fail 4 "$1 is needed, and this is neither Debian nor Ubuntu" "install $1, then run this again"
    [ -d "$work/lists" ] || private_apt update >"$work/apt.log" 2>&1 ||
        fail 5 "packages cannot be fetched: $(grep -E '^[EW]:' "$work/apt.log" | tail -n 1)" \
            "check the network and /etc/apt/sources.list; behind a proxy set Acquire::http::Proxy"
}

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        path=$(command -v "$candidate" 2>/dev/null) || continue
        "$path" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { printf '%s\n' "$path"; return; }
    done
    return 1
}

# Python's packages out of a bundle, which holds all that they depend on: those that are missing here, and those of Python
# itself that are older, for they ask for each other in one version.
install_carried() {
    say "python3: from the bundle"
    command -v dpkg >/dev/null 2>&1 || fail 4 "Python 3.11 or newer is needed, and this is neither Debian nor Ubuntu"
    set --
    for file in "$from"/deb/*.deb; do
        package=$(dpkg-deb -f "$file" Package)
        there=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$package" 2>/dev/null) || there=
        case "$there $package" in
            "installed "*" python3"* | "installed "*" libpython3"*)
                dpkg --compare-versions "${there#installed }" lt "$(dpkg-deb -f "$file" Version)" || continue ;;
            "installed "*) continue ;;
            *) [ "$package" = python3-pip-whl ] && continue; printf '%s\n' "$package" >>"$home/packages" ;;
        esac
        set -- "$@" "$file"
    done
    # By apt, which knows the order; it has no lists, so it can take nothing but these files.
    mkdir -p "$work/lists/partial"
    DEBIAN_FRONTEND=noninteractive private_apt install -y --no-install-recommends "$@" >"$work/apt.log" 2>&1 ||
        fail 6 "Python's packages cannot be installed: $(grep -E '^(E:| )' "$work/apt.log" | tail -n 3 | tr '\n' ' ')"
}

# What the operator put into a bundle and asks for, as far as it is not here: the operator's, so `uninstall` leaves it.
# apt gets it as a repository, from which it also takes what these packages want newer than it is here, and no more.
install_added() {
    [ -n "$root" ] || fail 4 "only root can install packages" "ask an administrator, or leave --packages out"
    set --
    for file in "$from"/package/*.deb; do
        package=$(dpkg-deb -f "$file" Package) || fail 5 "${file##*/} is no package"
        # By a name that no address writes in another way.
        mv "$file" "$from/package/.$package"
        file=$from/package/.$package
        {
            dpkg-deb -f "$file"
            printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "${file##*/}" "$(stat -c %s "$file")" \
                "$(sha256sum <"$file" | cut -d ' ' -f 1)"
        } >>"$from/package/Packages"
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || set -- "$@" "$package"
    done
    [ "$#" -gt 0 ] || return 0
    say "packages from the bundle: $*"
    printf 'deb [trusted=yes] file:%s ./\n' "$from/package" >"$work/sources.list"
    set -- -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        install -y --no-install-recommends "$@"
    private_apt "$1" "$2" "$3" "$4" update \
        >"$work/apt.log" 2>&1 || fail 6 "apt cannot read the packages of the bundle: $(tail -n 1 "$work/apt.log")"
    DEBIAN_FRONTEND=noninteractive private_apt "$@" >"$work/apt.log" 2>&1 ||
        fail 6 "the packages of the bundle cannot be installed: $(grep -E '^(E:| )' "$work/apt.log" | tail -n 3 | tr '\n' ' ')"
    rm -rf "$work/lists"
}

# The one thing that is installed into the system, only where it is missing; `uninstall` takes it away again.
install_python() {
    [ -n "$root" ] || fail 4 "Python 3.11 or newer is needed" "ask an administrator for: apt-get install python3"
    if [ -n "$from" ]; then
        install_carried
        return
    fi
    say "python3: from the distribution's packages"
    fetch_lists python3
    dpkg-query -W -f '${Package}\n' | sort >"$work/before"
    # Where the distribution's own one is too old, it has a newer one beside it.
    for package in python3 python3.13 python3.12 python3.11; do
        DEBIAN_FRONTEND=noninteractive private_apt install -y --no-install-recommends "$package" >"$work/apt.log" 2>&1 &&
            find_python >/dev/null && break
    done
    find_python >/dev/null ||
        fail 5 "Python 3.11 or newer cannot be installed: $(grep -E '^[EW]:' "$work/apt.log" | tail -n 1)"
    dpkg-query -W -f '${Package}\n' | sort | comm -13 "$work/before" - >>"$home/packages"
}

# pip for the new environment: Python's own copy, or the distribution's wheel of it, unpacked and not installed.
make_environment() { # DIRECTORY
    if "$python" -c 'import ensurepip' 2>/dev/null && "$python" -m venv "$1" 2>/dev/null; then
        return
    fi
    rm -rf "$1"
    "$python" -m venv --without-pip "$1" || fail 4 "$python cannot make environments" "apt-get install python3-venv"
    if [ -n "$from" ]; then
        cp "$from"/deb/python3-pip-whl_*.deb "$work"
    else
        fetch_lists python3-pip-whl
        (cd "$work" && private_apt download python3-pip-whl >"$work/apt.log" 2>&1) ||
            fail 5 "pip cannot be fetched: $(grep -E '^[EW]:' "$work/apt.log" | tail -n 1)"
    fi
    dpkg-deb -x "$work"/python3-pip-whl_*.deb "$work/pip"
    wheel=$(find "$work/pip" -name 'pip-*.whl' | head -n 1)
    "$1/bin/python" "$wheel/pip" install --quiet --no-index --no-deps "$wheel" || fail 5 "pip cannot be set up from $wheel"
}

install_from_wheels() { # DIRECTORY
    # Nothing but what was checked: no index, no configuration of pip's that names one.
    PIP_CONFIG_FILE=/dev/null && export PIP_CONFIG_FILE
    # shellcheck disable=SC2086 # several words each
    $pip install --quiet --isolated --no-index --no-deps "$1"/wheel/*.whl "$1"/appliance/*.whl ||
        fail 5 "llm-appliance cannot be installed from $1" "it was made for another Python or another kind of machine"
}

install_from_source() {
    # shellcheck disable=SC2086 # several words each
    $pip install --quiet $index --require-hashes --only-binary :all: -r "$source/installers/requirements.txt" ||
        fail 5 "llm-appliance's own packages cannot be fetched" \
            "check the network; behind a mirror set index-url in /etc/pip.conf, behind a proxy set https_proxy"
    # Built from a copy: the checkout may be read-only, and stays as it is.
    mkdir "$work/source"
    (cd "$source" && tar -cf - appliance templates images installers pyproject.toml README.md LICENSE) | tar -xf - -C "$work/source"
    # shellcheck disable=SC2086
    $pip install --quiet --no-index --no-deps --no-build-isolation "$work/source" || fail 1 "llm-appliance cannot be built"
}

install_appliance() {
    say "llm-appliance: its environment in $home/venv"
    rm -rf "$home/.venv.new"
    make_environment "$home/.venv.new"
    pip="$home/.venv.new/bin/python -m pip --disable-pip-version-check --no-input"
    # The machine's own certificates, so that a company's proxy is trusted as the system trusts it.
    if [ -z "${PIP_CERT:-}" ] && [ -f /etc/ssl/certs/ca-certificates.crt ]; then
        PIP_CERT=/etc/ssl/certs/ca-certificates.crt && export PIP_CERT
    fi
    index=
    [ -z "$offline" ] || index=--no-index
    if [ -n "$from" ]; then
        install_from_wheels "$from"
    elif [ -d "$source/wheels" ]; then
        install_from_wheels "$source/wheels"
    else
        install_from_source
    fi
    # By this `llm-appliance uninstall` knows that the program goes with the rest.
    [ -n "$packaged" ] || printf '%s\n' "$prefix" >"$home/.venv.new/llm-appliance-prefix"
    # Moved into place whole; the programs in it carry the place's name.
    find "$home/.venv.new/bin" -type f -size -100k -exec sed -i "1s|$home/.venv.new/|$home/venv/|" {} +
    rm -rf "$home/.venv.old"
    [ ! -d "$home/venv" ] || mv "$home/venv" "$home/.venv.old"
    mv "$home/.venv.new" "$home/venv"
    if [ -n "$packaged" ]; then
        hand_over
    else
        mkdir -p "$bin"
        ln -sfn "$home/venv/bin/llm-appliance" "$bin/llm-appliance"
    fi
}

# What an earlier install.sh kept track of is apt's business from now on.
hand_over() {
    case $(readlink "$bin/llm-appliance" 2>/dev/null) in "$home"/venv/*) rm -f "$bin/llm-appliance" ;; esac
    rm -f "$home/packages"
}

# The new program brings itself into force; when it cannot, the one before takes its place again, as what it had made did.
try_new() {
    "$home/venv/bin/llm-appliance" "$@" 9>&- &
    child=$! code=0
    trap 'kill -TERM "$child" 2>/dev/null || :' HUP INT TERM
    wait "$child" || code=$?
    while kill -0 "$child" 2>/dev/null; do # a signal ends the waiting, and not yet the program
        code=0
        wait "$child" || code=$?
    done
    trap - HUP INT TERM
    case $code in
        0 | 130) ;; # interrupted, the same command goes on
        *) if "$home/.venv.old/bin/python" -m appliance generations list --prefix "$prefix" >/dev/null 2>&1; then
            mv "$home/venv" "$home/.venv.new"
            mv "$home/.venv.old" "$home/venv"
            say "llm-appliance: the program before is back"
        fi ;;
    esac
    rm -rf "$home/.venv.old" "$home/.venv.new"
    exit "$code"
}

# Two that replace each other's program would leave neither whole.
refuse_package() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' llm-appliance 2>/dev/null)" != installed ] ||
        fail 4 "llm-appliance is installed as a package here" \
            "its newer package replaces it; then: llm-appliance install, or: llm-appliance bundle install FILE"
}

# What a run that ends early leaves behind: nothing, unless something is installed here.
clean_up() {
    rm -rf "$work" "$home/.venv.new"
    [ -z "$made" ] || [ -d "$home/venv" ] || { rm -f "$home/.install.lock"; rmdir "$home" 2>/dev/null || :; }
}

main() {
    prefix=/
    offline=
    from=
    bundle=
    packaged=
    only=
    made=
    source=$(cd "$(dirname "$0")/.." && pwd)
    count=$#
    while [ "$count" -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --prefix) [ "$count" -gt 1 ] || fail 2 "--prefix needs a directory"; prefix=$2; shift 2; count=$((count - 2)); continue ;;
            --prefix=*) prefix=${1#--prefix=}; shift; count=$((count - 1)); continue ;;
            --offline) offline=1 ;;
            --from) from=$2; shift 2; count=$((count - 2)); continue ;;
            --program-only) only=1; shift; count=$((count - 1)); continue ;;
            --packaged) packaged=1 only=1; shift; count=$((count - 1)); continue ;;
            --bundle) bundle=$2; shift 2; count=$((count - 2)); continue ;;
        esac
        set -- "$@" "$1"
        shift
        count=$((count - 1))
    done
    root=
    [ "$(id -u)" -ne 0 ] || root=1
    [ "$(uname -s)" = Linux ] || fail 4 "Linux is needed, this is $(uname -s)"
    case $(uname -m) in x86_64 | aarch64) ;; *) fail 4 "no engine is known for $(uname -m)" ;; esac
    if [ "$prefix" = / ]; then
        [ -n "$root" ] || fail 4 "only root can install system-wide" "sudo $0, or $0 --prefix DIR"
        home=/opt/llm-appliance bin=/usr/local/bin
        [ -n "$packaged" ] || refuse_package
    else
        [ -d "$prefix" ] || made=1
        mkdir -p "$prefix" || fail 4 "$prefix cannot be made"
        prefix=$(cd "$prefix" && pwd)
        home=$prefix bin=$prefix/bin
    fi
    umask 022
    [ -d "$home" ] || made=1
    mkdir -p "$home" || fail 4 "$home cannot be made"
    exec 9>"$home/.install.lock"
    if command -v flock >/dev/null 2>&1; then
        flock -n 9 || fail 8 "another install.sh is at work in $home" "wait for it, then try again"
    fi
    work=$(mktemp -d "$home/.install.XXXXXX")
    trap clean_up EXIT
    trap 'exit 130' HUP INT TERM
    [ -z "$from" ] || [ ! -d "$from/package" ] || install_added
    python=$(find_python) || { install_python; python=$(find_python) || fail 4 "the distribution's Python is older than 3.11"; }
    install_appliance
    rm -rf "$work"
    trap - EXIT HUP INT TERM
    [ -z "$only" ] || { rm -rf "$home/.venv.old"; exit 0; }
    if [ -n "$bundle" ]; then
        set -- bundle install "$bundle" "$@"
        say "llm-appliance bundle install"
    else
        set -- install "$@"
        say "llm-appliance install"
    fi
    [ ! -d "$home/.venv.old" ] || try_new "$@"
    exec "$home/venv/bin/llm-appliance" "$@" 9>&-
}

main "$@"
