#!/bin/sh
# Makes what llm-appliance is handed out as: a package for Debian and Ubuntu, or a release archive.
# The same checkout gives the same bytes, whenever and by whomever they are made.
set -eu

usage() {
    cat <<'TEXT'
Usage: release.sh [--out DIR] [--python PROGRAM] WHAT ...

  deb       llm-appliance_VERSION_ARCH.deb, with all that the program needs but Python in it
  archive   llm-appliance-VERSION.tar.gz, its digest beside it: unpack it, run installers/install.sh in it
  offline   the same with wheels for this Python and this kind of machine, so that no Python index is reached

  --out DIR         where they go; left out, this directory
  --python PROGRAM  a Python with the packages of installers/requirements.txt; left out, one is made for the while

SOURCE_DATE_EPOCH is the time that everything in them bears; left out, that of the last commit, or of pyproject.toml.
DEBFULLNAME and DEBEMAIL name the package's maintainer.
TEXT
}

fail() { # CODE MESSAGE [HINT]
    printf 'error: %s\n' "$2" >&2
    [ -z "${3:-}" ] || printf 'hint:  %s\n' "$3" >&2
    exit "$1"
}

need() {
    command -v "$1" >/dev/null 2>&1 || fail 4 "$1 is needed" "apt-get install $2"
}

own_python() {
    "$source/installers/install.sh" --prefix "$work/program" --program-only >&2
    python=$work/program/venv/bin/python
}

# Our own packages and ourselves as wheels, by the digests of the lock.
carry_wheels() { # DIRECTORY
    [ -d "$work/wheels" ] || {
        mkdir -p "$work/wheels/appliance"
        "$python" -m pip --disable-pip-version-check --no-input download --quiet --no-deps --require-hashes --only-binary :all: \
            --dest "$work/wheels/wheel" -r "$source/installers/requirements.txt" ||
            fail 5 "llm-appliance's own packages cannot be fetched" "check the network; behind a mirror set index-url in /etc/pip.conf"
        (cd "$source" && "$python" -c 'import sys; from pathlib import Path
from appliance.acquire.bundle.bootstrap import own_wheel
name, content = own_wheel()
Path(sys.argv[1], name).write_bytes(content)' "$work/wheels/appliance")
    }
    mkdir -p "$1"
    cp -R "$work/wheels/." "$1"
}

make_archive() { # NAME [wheels]
    tree=$work/$1
    mkdir -p "$tree"
    (cd "$source" && tar -cf - --exclude=__pycache__ --exclude='*.pyc' appliance templates images installers \
        pyproject.toml uv.lock README.md LICENSE Dockerfile.cuda) | tar -xf - -C "$tree"
    [ -z "${2:-}" ] || carry_wheels "$tree/wheels"
    tar -C "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u+rwX,go=rX \
        --format=gnu -cf "$work/$1.tar" "$1"
    gzip -9n "$work/$1.tar"
    (cd "$work" && sha256sum "$1.tar.gz") >"$out/$1.tar.gz.sha256"
    deliver "$work/$1.tar.gz"
}

deliver() { # FILE
    mv "$1" "$out/"
    printf '%s\n' "$out/${1##*/}"
}

control() {
    minor=$("$python" -c 'import sys; print(sys.version_info.minor)')
    cat <<TEXT
Package: llm-appliance
Version: $version
Architecture: $arch
Maintainer: ${DEBFULLNAME:-llm-appliance} <${DEBEMAIL:-maintainer@llm-appliance.invalid}>
Installed-Size: $(du -sk --apparent-size "$root/usr" | cut -f 1)
Depends: python3 (>= 3.$minor), python3 (<< 3.$((minor + 1))), python3-venv
Recommends: ca-certificates
Section: admin
Priority: optional
Description: turn this server into an LLM appliance
 One command serves language models behind one OpenAI endpoint: it looks at the
 machine, chooses an engine that runs there, writes hardened systemd units and
 puts nginx in front. Nothing is served before "llm-appliance install".
 .
 The program runs from an environment of its own, made from the wheels in this
 package when it is configured; no network is reached for that.
TEXT
}

copyright() {
    cat <<'TEXT'
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: llm-appliance

Files: *
Copyright: 2026 the authors of llm-appliance
License: Apache-2.0
 On Debian systems, the full text of the Apache License 2.0 is in
 /usr/share/common-licenses/Apache-2.0.
Comment: each wheel below /usr/lib/llm-appliance/wheel is its own authors'
 work; its licence is in it, and "pip show" names it.
TEXT
}

changelog() {
    printf 'llm-appliance (%s) unstable; urgency=medium\n\n  * Release %s.\n\n -- %s  %s\n' "$version" "$version" \
        "${DEBFULLNAME:-llm-appliance} <${DEBEMAIL:-maintainer@llm-appliance.invalid}>" "$(LC_ALL=C date -Ru -d "@$SOURCE_DATE_EPOCH")"
}

make_deb() {
    need dpkg-deb dpkg
    arch=$(dpkg --print-architecture)
    root=$work/root
    library=$root/usr/lib/llm-appliance
    share=$root/usr/share
    doc=$share/doc/llm-appliance
    mkdir -p "$root/DEBIAN" "$root/usr/bin" "$doc" "$share/man" "$share/bash-completion/completions" \
        "$share/zsh/vendor-completions" "$share/fish/vendor_completions.d"
    carry_wheels "$library"
    install -m 0755 "$source/installers/install.sh" "$library/install.sh"
    ln -s /opt/llm-appliance/venv/bin/llm-appliance "$root/usr/bin/llm-appliance"
    install -m 0644 "$source/templates/completion/llm-appliance.bash" "$share/bash-completion/completions/llm-appliance"
    install -m 0644 "$source/templates/completion/_llm-appliance" "$share/zsh/vendor-completions"
    install -m 0644 "$source/templates/completion/llm-appliance.fish" "$share/fish/vendor_completions.d"
    (cd "$source" && "$python" -m appliance.cli.manual "$share/man/man1")
    gzip -9n "$share"/man/man1/*
    copyright >"$doc/copyright"
    changelog | gzip -9n >"$doc/changelog.gz"
    control >"$root/DEBIAN/control"
    for script in postinst prerm postrm; do
        sed "s|@version@|$version|" "$source/installers/debian/$script" >"$root/DEBIAN/$script"
        chmod 0755 "$root/DEBIAN/$script"
    done
    (cd "$root" && find usr -type f -exec md5sum {} + | LC_ALL=C sort -k 2) >"$root/DEBIAN/md5sums"
    # Its times are clamped to SOURCE_DATE_EPOCH; gzip, for several threads of xz would decide on the bytes too.
    dpkg-deb --root-owner-group -Zgzip -z9 --build "$root" "$work/llm-appliance_${version}_$arch.deb" >/dev/null
    deliver "$work/llm-appliance_${version}_$arch.deb"
}

main() {
    out=.
    python=
    wanted=
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --out) [ $# -gt 1 ] || fail 2 "--out needs a directory"; out=$2; shift ;;
            --python) [ $# -gt 1 ] || fail 2 "--python needs a program"; python=$2; shift ;;
            deb | archive | offline) wanted="$wanted $1" ;;
            *) fail 2 "$1 is nothing that can be made" "one of deb, archive, offline" ;;
        esac
        shift
    done
    [ -n "$wanted" ] || { usage >&2; exit 2; }
    source=$(cd "$(dirname "$0")/.." && pwd)
    [ -f "$source/pyproject.toml" ] || fail 4 "releases are made from a checkout or a release archive, $source is none"
    mkdir -p "$out" && out=$(cd "$out" && pwd)
    umask 022
    version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$source/appliance/__init__.py")
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$source" log -1 --format=%ct 2>/dev/null || stat -c %Y "$source/pyproject.toml")}
    PYTHONDONTWRITEBYTECODE=1
    export SOURCE_DATE_EPOCH PYTHONDONTWRITEBYTECODE
    work=$(mktemp -d "$out/.release.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' HUP INT TERM
    case "$wanted" in *deb* | *offline*) [ -n "$python" ] || own_python ;; esac
    for one in $wanted; do
        case $one in
            deb) make_deb ;;
            archive) make_archive "llm-appliance-$version" ;;
            offline) make_archive "llm-appliance-$version-python3.$("$python" -c 'import sys; print(sys.version_info.minor)')-$(uname -m)" wheels ;;
        esac
    done
}

main "$@"
