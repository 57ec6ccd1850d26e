#!/usr/bin/env python3
"""Counts the instructions that a small request takes in the gateway and in bare Pingora, which other work changes little.

request_instructions.py             a table of both
request_instructions.py DIRECTORY   also the functions of each, as callgrind_annotate has them, in this directory

The kernel's part is not in it. Two runs of each are subtracted, so that start and end drop out.
"""

import ctypes
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
BUILD = ["cargo", "build", "--release", "--locked", "-p", "runit-gateway", "-p", "runit-bench"]
FEW, MANY = 500, 2500
BODY = b"d" * 1024
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 1024\r\n\r\n" + BODY
START_SECONDS = 120


def main():
    subprocess.run(BUILD, cwd=ROOT, check=True)
    functions = Path(sys.argv[1]) if sys.argv[1:] else None
    upstream = listen()
    print("| proxy | instructions a request |\n| --- | ---: |")
    for name, start in (("bare Pingora", start_bare), ("RUNIT", start_gateway)):
        few, many = (count(start, upstream, requests, functions) for requests in (FEW, MANY))
        print(f"| {name} | {round((many - few) / (MANY - FEW))} |", flush=True)


def count(start, upstream, requests, functions):
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        counted = directory / "callgrind"
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={counted}"]
        with open(directory / "log", "wb") as log:
            process, gateway, request = start(directory, upstream, valgrind, log)
        try:
            with connected(gateway) as connection:
                for _ in range(requests):
                    exchange(connection, request)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(START_SECONDS)
        said = (directory / "log").read_text(errors="replace")
        if functions:
            functions.mkdir(exist_ok=True)
            annotate = ["callgrind_annotate", "--inclusive=yes", "--threshold=99.9", counted]
            with open(functions / f"{start.__name__}-{requests}.txt", "wb") as out:
                subprocess.run(annotate, stdout=out, check=True)
        return int(re.search(r"Collected : (\d+)", said)[1])


def start_bare(directory, upstream, valgrind, log):
    plain, secure = free_address(), free_address()
    key, chain = directory / "key.pem", directory / "chain.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
        + ["-subj", "/CN=localhost", "-keyout", key, "-out", chain],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    command = [PROGRAMS / "bare-pingora", text(plain), text(secure), text(upstream), chain, key]
    process = subprocess.Popen([*valgrind, *command], stdout=log, stderr=log, preexec_fn=hide_vdso)
    connected(plain).close()
    return process, plain, request_for(plain, "", "")


def start_gateway(directory, upstream, valgrind, log):
    gateway, control, admin = free_address(), free_address(), free_address()
    fast = "{ per_second = 1000000, burst = 1000000 }"
    settings = directory / "runit.toml"
    settings.write_text(
        f'[gateway]\nlisten = "{text(gateway)}"\npublic_url = "http://{text(gateway)}"\n'
        f'admin_listen = "{text(admin)}"\ndrain_seconds = 0\n'
        f'[control]\nlisten = "{text(control)}"\npublic_url = "http://{text(control)}"\ndata_dir = "{directory}/data"\n'
        f"[limits]\nrequests_per_address = {fast}\nrequests_per_session = {fast}\n"
        '[upstream]\nplain_http_hosts = ["127.0.0.1"]\n'
        "[quota]\ncap_bytes = 1000000000000\n",
        encoding="utf-8",
    )
    command = [PROGRAMS / "runit-gateway", "--config", settings]
    process = subprocess.Popen([*valgrind, *command], stdout=log, stderr=log, preexec_fn=hide_vdso)
    connected(control).close()
    provider = {"providerId": "bench", "publicUrl": f"http://{text(upstream)}", "token": "secret"}
    registration = urllib.request.Request(
        f"http://{text(control)}/provider/session",
        json.dumps(provider).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(registration, timeout=START_SECONDS) as answer:
        session = json.load(answer)
    credential = f"Authorization: token {session['accessToken']}\r\n"
    connected(gateway).close()
    return process, gateway, request_for(gateway, f"/s/{session['sessionId']}", credential)


def hide_vdso():
    """Has `prctl(PR_GET_AUXV)` fail: the kernel's answer names a vDSO that valgrind has taken away, and rustix would read it."""
    prctl, get_auxv = 157, 0x41555856
    load, equals, give = 0x20, 0x15, 0x06
    fails, allowed = 0x50000 | 22, 0x7FFF0000
    steps = [(load, 0, 0, 0), (equals, 0, 3, prctl), (load, 0, 0, 16), (equals, 0, 1, get_auxv)]
    steps += [(give, 0, 0, fails), (give, 0, 0, allowed)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(set_seccomp, filter_mode, program, 0, 0):
        raise OSError(ctypes.get_errno(), "no seccomp")


def request_for(proxy, prefix, credential):
    return f"GET {prefix}/bytes/1024 HTTP/1.1\r\nHost: {text(proxy)}\r\n{credential}\r\n".encode()


def exchange(connection, request):
    connection.sendall(request)
    answer = b""
    while not (answer.startswith(b"HTTP/1.1 200") and answer.endswith(BODY)):
        some = connection.recv(65536)
        if not some:
            sys.exit(f"no more after {answer!r}")
        answer += some


def listen():
    """The server behind both: every request gets the same answer."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        waiting = b""
        while some := connection.recv(65536):
            waiting += some
            while b"\r\n\r\n" in waiting:
                waiting = waiting.split(b"\r\n\r\n", 1)[1]
                connection.sendall(ANSWER)

    def accept():
        while True:
            threading.Thread(target=serve, args=server.accept()[:1], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return server.getsockname()


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()


def connected(address):
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            connection = socket.create_connection(address, START_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def text(address):
    return f"{address[0]}:{address[1]}"


if __name__ == "__main__":
    main()
