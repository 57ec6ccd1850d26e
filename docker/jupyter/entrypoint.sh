#!/bin/bash
# Starts JupyterLab as the image's user. The contract is at the top of the Dockerfile.
set -euo pipefail
umask 022

readonly STATE=/workspace/.runit

main() {
    local token=${RUNIT_JUPYTER_TOKEN:-}
    local base_url=${RUNIT_BASE_URL:-/}
    unset RUNIT_JUPYTER_TOKEN

    [ "$(id -u)" -ne 0 ] || die "will not run as root"
    echo "Running as: $(whoami)"

    [ -n "$token" ] || die "RUNIT_JUPYTER_TOKEN is not set: nobody could be told apart from anybody"
    [[ $base_url =~ ^/([A-Za-z0-9._~-]+/)*$ ]] || die "RUNIT_BASE_URL must be a path with a slash at both ends"
    [ -w /workspace ] || die "/workspace cannot be written to by uid $(id -u)"
    [ -w /tmp ] || die "/tmp cannot be written to"

    (
        umask 077
        mkdir -p "$TMPDIR" "$XDG_CACHE_HOME" "$JUPYTER_CONFIG_DIR" "$JUPYTER_DATA_DIR" "$JUPYTER_RUNTIME_DIR" \
            "$IPYTHONDIR" "$MPLCONFIGDIR"
    )
    cp /opt/jupyter/share/matplotlib/fontlist-*.json "$MPLCONFIGDIR/"
    make_renter_environment

    # The secret goes through a pipe: in the environment every kernel and terminal would inherit it, and
    # /proc/1/environ would show it.
    exec tini -- /opt/jupyter/bin/jupyter-lab --ServerApp.base_url="$base_url" <<<"$token"
}

# What the renter installs goes into an environment of the workspace, since the image's is read-only. It sees the image's
# packages through a .pth file, after its own: so pip need not fetch them again, a newer one wins, and nothing that the
# renter installs can break the server, which does not look there.
make_renter_environment() {
    local venv=$STATE/venv
    [ ! -x "$venv/bin/pip" ] || return 0
    /opt/jupyter/bin/python -m venv --without-pip "$venv"
    local query='import sysconfig; print(sysconfig.get_path("purelib"))'
    /opt/jupyter/bin/python -c "$query" >"$("$venv/bin/python" -c "$query")/runit-image.pth"
    # Last, as it marks the environment as complete.
    printf '#!/bin/sh\nexec %s/bin/python -m pip "$@"\n' "$venv" >"$venv/bin/pip3"
    chmod 0755 "$venv/bin/pip3"
    cp "$venv/bin/pip3" "$venv/bin/pip"
}

die() {
    echo "runit-jupyter: $*" >&2
    exit 64
}

main
