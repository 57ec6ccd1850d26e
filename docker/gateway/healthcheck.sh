#!/bin/bash
# Healthy is: the control API answers `GET /` with its line. In bash, because the image has no other HTTP client.
#
#   healthcheck.sh [PORT]     default: 10000

set -euo pipefail

exec 3<>"/dev/tcp/127.0.0.1/${1:-10000}"
printf 'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
answer=$(timeout 2 cat <&3)
[[ $answer == 'HTTP/1.1 200 '* && $answer == *'RUNIT control plane running'* ]]
