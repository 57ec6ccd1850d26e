#!/usr/bin/env bash
# Installs what the gateway is measured against, and only what is missing: nginx with Lua and HAProxy from Debian,
# configurable-http-proxy from npm into target/bench-peers. Written for Debian 12 as root.

set -euo pipefail
cd "$(dirname "$0")/.."

readonly CHP_VERSION=5.3.0
readonly PEERS=target/bench-peers

missing=()
for program in nginx haproxy npm valgrind; do
    command -v "$program" >/dev/null || missing+=("$program")
done
[ -e /usr/share/nginx/modules-available/mod-http-lua.conf ] || missing+=(libnginx-mod-http-lua)
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "[bench] missing: ${missing[*]}; install them (on Debian as root this is done here)" >&2
        exit 1
    fi
    echo "[bench] installing ${missing[*]}"
    apt-get update -qq
    # Debian would start the servers, on ports of their own; they are not wanted.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

chp=$PEERS/node_modules/.bin/configurable-http-proxy
if [ "$("$chp" --version 2>/dev/null)" != "$CHP_VERSION" ]; then
    echo "[bench] installing configurable-http-proxy $CHP_VERSION"
    mkdir -p "$PEERS"
    npm install --silent --no-fund --no-audit --prefix "$PEERS" "configurable-http-proxy@$CHP_VERSION"
fi
