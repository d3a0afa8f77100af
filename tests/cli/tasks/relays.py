"""Relays, in clear and with TLS at one side."""

from __future__ import annotations

import re
import signal
import time

from tests.cli.tasks.bench import Bench, Running
from tests.cli.tasks.scenarios import task
from tests.tls import certificates

TLS_CLIENT = "openssl s_client -quiet -verify_return_error -CAfile ca.pem -connect example.com:8443"
ORIGIN = "socat TCP-LISTEN:8080,reuseaddr,fork EXEC:cat"


def _says_the_same(client: Running) -> None:
    client.type("hello\n")
    client.says("^hello\n$")


@task("Forward a port")
def forward(bench: Bench, lines: list[str]) -> None:
    bench.start("socat TCP-LISTEN:80,reuseaddr,fork EXEC:cat", listens=80)
    bench.start(lines[0], listens=8080)
    for client in [bench.start("nc example.com 8080") for _ in range(2)]:
        _says_the_same(client)


@task("Forward between TCP and a Unix socket")
def forward_unix(bench: Bench, lines: list[str]) -> None:
    bench.start("socat UNIX-LISTEN:/run/app.sock,fork EXEC:cat", listens="/run/app.sock")
    bench.start("socat TCP-LISTEN:5432,reuseaddr,fork EXEC:cat", listens=5432)
    bench.start(lines[0], listens=9000)
    bench.start(lines[1], listens="/run/db.sock")
    _says_the_same(bench.start("nc example.com 9000"))
    _says_the_same(bench.start("nc -U /run/db.sock"))


@task("Balance over several targets")
def balance(bench: Bench, lines: list[str]) -> None:
    kind, options = "TCP", ""
    if not bench.ours:  # stunnel needs TLS at one side
        bench.write_certificates()
        bench.write_files()
        kind, options = "OPENSSL", ",cert=server.pem,key=server.key,verify=0"
    for host in ("192.0.2.7", "192.0.2.8"):
        words = f"{kind}-LISTEN:80,bind={host},reuseaddr,fork{options}"
        bench.start(f"socat -d -d {words} SYSTEM:'echo {host}'").says("listening", on_stderr=True)
    both = [bench.here("192.0.2.7"), bench.here("192.0.2.8")]
    relay = bench.start(lines[0], listens=9000)
    answers = [bench.run("nc example.com 9000").out.strip() for _ in range(4)]
    assert answers in (both * 2, both[::-1] * 2)
    if bench.ours:
        assert answers[0] == both[0]
        bench.end(relay)
        bench.start(lines[0].replace("round-robin", "first"), listens=9000)
        assert {bench.run("nc example.com 9000").out.strip() for _ in range(3)} == {both[0]}


@task("See the traffic")
def dump(bench: Bench, lines: list[str]) -> None:
    bench.start("socat TCP-LISTEN:80,reuseaddr,fork EXEC:cat", listens=80)
    relay = bench.start(lines[0], listens=8080)
    _says_the_same(bench.start("nc example.com 8080"))
    hexadecimal = re.compile(r"68 ?65 ?6c ?6c ?6f ?0a", re.IGNORECASE)
    if "ncat" in lines[0]:
        assert len(hexadecimal.findall((bench.where / "dump.txt").read_text())) == 2
    else:
        relay.says(f"(?is){hexadecimal.pattern}.*{hexadecimal.pattern}", on_stderr=True)


@task("Simulate a bad network")
def fault(bench: Bench, lines: list[str]) -> None:
    bench.start("socat TCP-LISTEN:80,reuseaddr,fork EXEC:cat", listens=80)
    bench.start(lines[0], listens=8080)
    client = bench.start("nc example.com 8080")
    begin = time.monotonic()
    _says_the_same(client)
    assert time.monotonic() - begin > 0.4


@task("Put TLS in front of a server")
def terminate(bench: Bench, lines: list[str]) -> None:
    bench.write_certificates()
    bench.write_files()
    bench.start(ORIGIN, listens=8080)
    bench.start(lines[0], listens=8443)
    _says_the_same(bench.start(TLS_CLIENT))


@task("Give TLS to a client that has none")
def originate(bench: Bench, lines: list[str]) -> None:
    bench.write_certificates()
    bench.write_files()
    server = "socat OPENSSL-LISTEN:6380,reuseaddr,fork,cert=server.pem,key=server.key,verify=0 EXEC:cat"
    bench.start(server, listens=6380)
    bench.start(lines[0], listens=6379)
    _says_the_same(bench.start("nc example.com 6379"))


@task("Change a certificate without a restart")
def reload(bench: Bench, lines: list[str]) -> None:
    bench.write_certificates()
    bench.write_files()
    bench.start(ORIGIN, listens=8080)
    relay = bench.start(f"exec {lines[0]}", listens=8443)
    old = bench.start(TLS_CLIENT)
    _says_the_same(old)
    before = _fingerprint(bench)
    bench.write_certificates(certificates.name_only())
    relay.signal(signal.SIGHUP)
    limit = time.monotonic() + 10
    while _fingerprint(bench) == before:
        assert time.monotonic() < limit, f"{relay} has the old certificate"
    old.type("again\n")
    old.says("again")
    if bench.ours:
        relay.signal(signal.SIGTERM)
        old.type("still\n")
        old.says("still")
        bench.end(old)
        assert relay.code() == 0


def _fingerprint(bench: Bench) -> str:
    line = "openssl s_client -connect example.com:8443 < /dev/null | openssl x509 -noout -fingerprint"
    return bench.run(line).out


@task("Connect through a SOCKS proxy")
def socks(bench: Bench, lines: list[str]) -> None:
    """The proxy reads a greeting and a request of fixed lengths, and becomes an echo."""
    greeting = r"head -c 3 > /dev/null; printf '\005\000'"
    request = r"head -c 10 > /dev/null; printf '\005\000\000\001\000\000\000\000\000\000'"
    (bench.where / "socks.sh").write_text(f"{greeting}; {request}; exec cat")
    bench.start("socat TCP-LISTEN:1080,reuseaddr,fork EXEC:'sh socks.sh'", listens=1080)
    _says_the_same(bench.start(lines[0]))


@task("Connect through an HTTP proxy")
def http_proxy(bench: Bench, lines: list[str]) -> None:
    bench.start("socat TCP-LISTEN:80,reuseaddr,fork EXEC:cat", listens=80)
    bench.start("ncat -lk --proxy-type http 3128", listens=3128)
    _says_the_same(bench.start(lines[0]))


@task("Tell the server the client's address (PROXY protocol)")
def proxy_protocol(bench: Bench, lines: list[str]) -> None:
    bench.write_certificates()
    bench.write_files()
    bench.start(ORIGIN, listens=8080)
    bench.start(lines[0], listens=8443)
    bench.start(TLS_CLIENT).says(r"^PROXY TCP[46] \S+ \S+ \d+ \d+")
