#!/usr/bin/env bash
# Installs and starts what RUNIT needs from the machine, and only what is missing. Run it as often as you like.
#
#   setup.sh                  engine, then base
#   setup.sh engine           a Docker engine that answers, and nft, by which the agent restricts a container's traffic
#   setup.sh base             the image runit-base:bookworm, which the images in this folder are built on
#   setup.sh test [VENV]      engine, base, Chromium, git, nginx, Node, valgrind, slowhttptest, and a Python environment with
#                             the clients that `make test` uses (VENV: target/test-venv under the repository, unless given)
#
# Written for Debian 12 as root. Elsewhere it uses what is there already, and where a part is missing it says which
# one, installs nothing, and ends with a status other than 0.
#
# Settings (environment):
#   RUNIT_DEBIAN_MIRROR       where debootstrap fetches from; default http://deb.debian.org/debian
#   RUNIT_PULL_TIMEOUT        seconds that pulling the public base image may take; default 60

set -euo pipefail

readonly BASE_IMAGE=runit-base:bookworm
readonly PUBLIC_BASE_IMAGE=debian:bookworm-slim
readonly ENGINE_LOG=/var/log/runit-dockerd.log
readonly ENGINE_DEADLINE_SECONDS=60
readonly LOCK_FILE=/var/lock/runit-setup.lock

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

main() {
    case "${1:-all}" in
        all)
            set_up_engine
            set_up_base
            ;;
        engine) set_up_engine ;;
        base) set_up_base ;;
        test)
            set_up_engine
            set_up_base
            set_up_test_tools "${2:-$(dirname "$here")/target/test-venv}"
            ;;
        -h | --help | help) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" ;;
        *) die "unknown command: $1 (see --help)" ;;
    esac
}

say() { printf '[setup] %s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# ---- engine ----

set_up_engine() {
    if ! have nft; then
        need_debian_root "nft is not installed"
        install_packages nftables
    fi
    if engine_answers; then
        return
    fi
    if ! have dockerd; then
        need_debian_root "no Docker engine answers, and none is installed"
        install_packages docker.io iptables ca-certificates
    fi
    if ! engine_answers; then
        need_root "the Docker engine is installed but does not answer"
        start_engine
    fi
    have docker || die "the Docker engine runs, but there is no docker command"
    say "Docker engine $(docker version --format '{{.Server.Version}}') answers"
}

engine_answers() { have docker && docker info >/dev/null 2>&1; }

start_engine() {
    if [ -d /run/systemd/system ]; then
        say "starting docker.service"
        systemctl start docker || die "docker.service did not start: see journalctl -u docker"
    elif engine_process_runs; then
        say "dockerd is starting"
    else
        say "starting dockerd (log: $ENGINE_LOG)"
        # A session of its own, so that it outlives this script and its terminal; without our lock, so that a later
        # run does not wait for the engine to end.
        setsid nohup dockerd >>"$ENGINE_LOG" 2>&1 </dev/null 9>&- &
        local engine_pid=$!
    fi
    local deadline=$((SECONDS + ENGINE_DEADLINE_SECONDS))
    until engine_answers; do
        if [ -n "${engine_pid:-}" ] && ! kill -0 "$engine_pid" 2>/dev/null; then
            tail -n 5 "$ENGINE_LOG" >&2
            die "dockerd ended at once: see $ENGINE_LOG"
        fi
        if [ "$SECONDS" -ge "$deadline" ]; then
            die "the Docker engine did not answer within $ENGINE_DEADLINE_SECONDS s: $(docker info 2>&1 | tail -n 1)"
        fi
        sleep 0.3
    done
}

engine_process_runs() { [ -r /var/run/docker.pid ] && kill -0 "$(cat /var/run/docker.pid)" 2>/dev/null; }

# ---- base image ----

set_up_base() {
    engine_answers || die "no Docker engine answers: run '$0 engine' first"
    if docker image inspect "$BASE_IMAGE" >/dev/null 2>&1; then
        return
    fi
    if timeout "${RUNIT_PULL_TIMEOUT:-60}" docker pull --quiet "$PUBLIC_BASE_IMAGE" >/dev/null 2>&1; then
        docker tag "$PUBLIC_BASE_IMAGE" "$BASE_IMAGE"
        say "$BASE_IMAGE is $PUBLIC_BASE_IMAGE"
        return
    fi
    say "$PUBLIC_BASE_IMAGE cannot be pulled; making $BASE_IMAGE with debootstrap"
    if ! have debootstrap; then
        need_debian_root "debootstrap is not installed"
        install_packages debootstrap debian-archive-keyring
    fi
    need_root "debootstrap has to run as root"
    bootstrap_base
    say "$BASE_IMAGE is ready"
}

bootstrap_base() {
    local mirror=${RUNIT_DEBIAN_MIRROR:-http://deb.debian.org/debian}
    local tree
    # Not in /tmp: it may be a small tmpfs, or mounted nodev, where debootstrap cannot work.
    tree=$(mktemp -d /var/tmp/runit-base.XXXXXX)
    # shellcheck disable=SC2064 # the path is meant to be fixed now
    trap "rm -rf '$tree'" EXIT

    # dpkg has to know what to leave out before it unpacks: the same list as the public slim image.
    mkdir -p "$tree/etc/dpkg/dpkg.cfg.d" "$tree/etc/apt/apt.conf.d"
    cat >"$tree/etc/dpkg/dpkg.cfg.d/docker" <<'CFG'
force-unsafe-io
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
CFG
    if ! debootstrap --variant=minbase bookworm "$tree" "$mirror" >"$tree.log" 2>&1; then
        tail -n 5 "$tree.log" >&2
        die "debootstrap failed: see $tree.log"
    fi
    rm -f "$tree.log"

    rm -f "$tree/etc/apt/sources.list"
    cat >"$tree/etc/apt/sources.list.d/debian.sources" <<SRC
Types: deb
URIs: $mirror
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: ${mirror%/debian}/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SRC
    # An image starts no services while packages are installed.
    printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
    chmod 0755 "$tree/usr/sbin/policy-rc.d"
    # What debootstrap unpacked before dpkg read the list, and what belongs to the machine that it ran on.
    find "$tree/usr/share/doc" -type f ! -name copyright -delete
    rm -rf "$tree"/usr/share/{info,locale,man}/* "$tree"/var/cache/apt/*.bin "$tree"/var/cache/apt/archives/*.deb \
        "$tree"/var/lib/apt/lists/* "$tree"/var/log/*.log "$tree/etc/resolv.conf" "$tree/etc/hostname"

    tar --numeric-owner -C "$tree" -c . | docker import --change 'CMD ["bash"]' - "$BASE_IMAGE" >/dev/null
    rm -rf "$tree"
    trap - EXIT
}

# ---- what `make test` needs besides ----

set_up_test_tools() {
    local venv=$1
    local packages=()
    have git || packages+=(git)
    have slowhttptest || packages+=(slowhttptest)
    have ip || packages+=(iproute2)
    have chromium || packages+=(chromium)
    # Servers that the gateway's corpus is read by. Debian puts nginx where only root's PATH may look.
    have nginx || [ -x /usr/sbin/nginx ] || packages+=(nginx-light)
    have node || packages+=(nodejs)
    have valgrind || packages+=(valgrind)
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || packages+=(postgresql)
    # ensurepip is what Debian's python3 lacks without python3-venv.
    if ! "$(test_python)" -c 'import ensurepip, venv' 2>/dev/null; then
        packages+=(python3 python3-venv)
    fi
    if [ "${#packages[@]}" -gt 0 ]; then
        need_debian_root "the tests need ${packages[*]}"
        install_packages "${packages[@]}"
    fi

    set_up_prometheus "$(dirname "$venv")/test-prometheus"

    # A stamp and not "pip install every time": pip alone takes longer than a second run of this script may.
    local stamp=$venv/requirements.sha256
    local wanted
    wanted=$(sha256sum <"$here/requirements-test.txt")
    if [ -x "$venv/bin/pytest" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    say "installing the test clients into $venv"
    mkdir -p "$(dirname "$venv")"
    # --clear empties what a link points at, which may be somebody else's; the link itself is ours.
    [ ! -L "$venv" ] || rm "$venv"
    "$(test_python)" -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements-test.txt" ||
        die "pip could not install $here/requirements-test.txt into $venv"
    printf '%s\n' "$wanted" >"$stamp"
}

# Debian's package, unpacked and not installed: an installed one would start a service.
set_up_prometheus() {
    local into=$1
    if have promtool || [ -x "$into/usr/bin/promtool" ]; then
        return
    fi
    need_debian_root "the tests need promtool"
    say "unpacking prometheus into $into"
    local draft
    draft=$(mktemp -d)
    chmod 0755 "$draft"
    if ! (apt-get update -q && cd "$draft" && apt-get download -q prometheus && dpkg -x prometheus_*.deb tree) \
        >"$draft/log" 2>&1 9>&-; then
        tail -n 10 "$draft/log" >&2
        die "apt could not fetch prometheus: see $draft/log"
    fi
    mkdir -p "$(dirname "$into")"
    rm -rf "$into"
    mv "$draft/tree" "$into"
    rm -rf "$draft"
}

# The system's own Python where there is one: a version manager's `python3` changes under the environment.
test_python() {
    if [ -x /usr/bin/python3 ]; then echo /usr/bin/python3; else echo python3; fi
}

# ---- the machine ----

have() { command -v "$1" >/dev/null 2>&1; }

need_root() {
    [ "$(id -u)" -eq 0 ] || die "$1; run this as root (sudo $0), or put it right and run it again"
}

need_debian_root() {
    local id='' version=''
    if [ -r /etc/os-release ]; then
        # shellcheck source=/dev/null
        id=$(. /etc/os-release && echo "${ID:-}")
        # shellcheck source=/dev/null
        version=$(. /etc/os-release && echo "${VERSION_ID:-}")
    fi
    if [ "$id" != debian ] || [ "$version" != 12 ]; then
        die "$1. This script can install it on Debian 12 only, and this is ${id:-$(uname -s)} ${version:-}: install it by hand, then run this again"
    fi
    need_root "$1"
}

install_packages() {
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    local log
    log=$(mktemp)
    # Another apt may be at work on a machine that has just started: wait for it.
    # Without our lock: a package may start a service, which would hold it for good.
    if ! { apt-get update -q && apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"; } \
        >"$log" 2>&1 9>&-; then
        tail -n 10 "$log" >&2
        die "apt could not install $*: see $log"
    fi
    rm -f "$log"
    hash -r
}

# Two runs at once would start two engines. Without root there is nothing to install or start, so nothing to guard.
if [ "$(id -u)" -eq 0 ] && have flock; then
    exec 9>"$LOCK_FILE"
    flock 9
fi
main "$@"
