#!/bin/sh
# Installs the appliance below PREFIX inside of an image that is being built, with a llama-server that is there already.
# Usage: container.sh PREFIX LLAMA_SERVER
set -eu

prefix=$1 server=$2
source=$(cd "$(dirname "$0")" && pwd)
serve="--runtime supervisord --listen 0.0.0.0:8080 --insecure"

# shellcheck disable=SC2086 # several words
"$source/install.sh" --prefix "$prefix" $serve --dry-run
# Where an engine would lie that had been built on this machine before.
# shellcheck disable=SC2086
digest=$("$prefix/bin/llm-appliance" install $serve --dry-run --json |
    "$prefix/venv/bin/python" -c 'import json, sys
artifacts = json.load(sys.stdin)["data"]["deployment"]["artifacts"]
print(next(one["digest"] for one in artifacts if one["kind"] == "build"))')
built=$prefix/cache/built/$digest
mkdir -p "$built"
cp "$server" "$built/llama-server"
sha256sum "$built/llama-server" | cut -d ' ' -f 1 | tr -d '\n' >"$built/sha256"

# shellcheck disable=SC2086
"$prefix/bin/llm-appliance" install $serve
"$prefix/bin/llm-appliance" stop
rm -rf "$prefix/cache/built" "$prefix"/run/*.sock "$prefix"/log/*.log
mkdir -p "$prefix/cache" "$prefix/etc" "$prefix/run" "$prefix/log"
