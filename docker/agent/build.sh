#!/usr/bin/env bash
# Builds the agent's image around a binary that `cargo build --release -p runit-agent` has made.
#
#   build.sh [TAG]            default: runit-agent
#
# Settings (environment):
#   RUNIT_BINARY              default: target/release/runit-agent under the repository, or under CARGO_TARGET_DIR
#   RUNIT_CLOUDFLARED         a cloudflared to put in; default: none
#   RUNIT_IMAGE_BASE          base image; default: runit-base:bookworm where it exists, else the Dockerfile's own
#   http_proxy, ...           passed on

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tag=${1:-runit-agent}

main() {
    local binary=${RUNIT_BINARY:-${CARGO_TARGET_DIR:-$here/../../target}/release/runit-agent}
    if [ ! -x "$binary" ]; then
        echo "$binary does not exist: cargo build --release -p runit-agent" >&2
        exit 1
    fi

    # A context of its own: the target directory is gigabytes, and the classic builder sends all of a context.
    local context
    context=$(mktemp -d)
    # shellcheck disable=SC2064 # the path is meant to be fixed now
    trap "rm -rf '$context'" EXIT
    cp "$here/Dockerfile" "$context"
    cp "$binary" "$context/runit-agent"
    if [ -n "${RUNIT_CLOUDFLARED:-}" ]; then
        cp "$RUNIT_CLOUDFLARED" "$context/cloudflared"
    fi

    local args=()
    local base=${RUNIT_IMAGE_BASE:-}
    if [ -z "$base" ] && docker image inspect runit-base:bookworm >/dev/null 2>&1; then
        base=runit-base:bookworm
    fi
    if [ -n "$base" ]; then
        args+=(--build-arg "BASE=$base")
    fi
    local name
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        if [ -n "${!name:-}" ]; then
            args+=(--build-arg "$name")
        fi
    done
    DOCKER_BUILDKIT=0 docker build --force-rm "${args[@]}" --tag "$tag" "$context"
}

main
