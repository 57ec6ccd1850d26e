#!/usr/bin/env bash
# Builds the image as the contract at the top of the Dockerfile says; the agent does the same through the engine's API.
#
#   build.sh [TAG]            default: runit-jupyter
#
# Settings (environment):
#   RUNIT_IMAGE_BASE        base image; default: runit-base:bookworm where it exists, else the Dockerfile's own
#   RUNIT_BUILD_CA_BUNDLE     CA bundle for pip while it builds; default: what PIP_CERT, REQUESTS_CA_BUNDLE or SSL_CERT_FILE
#                             name, in this order, if any. Set but empty: none
#   PIP_*, http_proxy, ...    passed on

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tag=${1:-runit-jupyter}

main() {
    local ca_bundle=${RUNIT_BUILD_CA_BUNDLE-${PIP_CERT:-${REQUESTS_CA_BUNDLE:-${SSL_CERT_FILE:-}}}}
    local context
    context=$(mktemp -d)
    # shellcheck disable=SC2064 # the path is meant to be fixed now
    trap "rm -rf '$context'" EXIT
    cp -R "$here/." "$context"
    rm -f "$context/ca-bundle.crt"
    if [ -n "$ca_bundle" ]; then
        cp -L "$ca_bundle" "$context/ca-bundle.crt"
        chmod 0644 "$context/ca-bundle.crt"
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
    for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_DEFAULT_TIMEOUT \
        http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        if [ -n "${!name:-}" ]; then
            # By name only: a proxy's password does not belong on a command line.
            args+=(--build-arg "$name")
        fi
    done

    # The classic builder, because it is what the agent gets from the engine's API.
    DOCKER_BUILDKIT=0 docker build --force-rm "${args[@]}" --tag "$tag" "$context"
}

main
