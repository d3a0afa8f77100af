"""Command lines of netcat: the error has the line of ``wireline`` that does the same."""

from __future__ import annotations

import re
import shlex

import pytest

from wireline.cli import main
from wireline.cli.parser._parser import parse

LINES = {
    "-l -p 9000": "listen :9000",
    "-l 9000": "listen :9000",
    "-lvnp 4444": "listen :4444",
    "-lp9000": "listen :9000",
    "-l -s 127.0.0.1 -p 9000": "listen 127.0.0.1:9000",
    "-lk ::1 9000": "listen --keep '[::1]:9000'",
    "-l -w 3 9000": "listen --timeout 3 :9000",
    "-lU /tmp/socket": "listen unix:/tmp/socket",
    "-lu 9000": "listen udp://:9000",
    "-luU /tmp/socket": "listen unix-dgram:/tmp/socket",
    "-l": "listen :PORT",
    "--listen --keep-open 9000": "listen --keep :9000",
    "-l --echo 9000": "listen --echo :9000",
    "listen -l -p 9000": "listen :9000",
    "listen -lvnp 4444": "listen :4444",
    "listen -p 9000": "listen :9000",
    "listen -k :9000": "listen --keep :9000",
    "listen -u :9000": "listen udp://:9000",
    "-u example.com 53": "connect udp://example.com:53",
    "-zv example.com 443": "check example.com:443",
    "-w 3 -z ::1 443": "check --timeout 3 '[::1]:443'",
    "-N example.com 80": "connect --at-eof half-close example.com:80",
    "-p 1234 -s 127.0.0.1 example.com 80": "connect --source 127.0.0.1:1234 example.com:80",
    "-4 -p 1234 example.com 80": "connect --source :1234 -4 example.com:80",
    "connect -p 1234 example.com 80": "connect --source :1234 example.com:80",
    "connect -vn example.com 80": "connect -v example.com:80",
    "-C -q 3 example.com 80": "connect --quit-after 3 --crlf example.com:80",
    "-q 0 example.com 80": "connect --at-eof close example.com:80",
    "-q -1 example.com 80": "connect example.com:80",
    "-d example.com 80": "connect example.com:80 < /dev/null",
    "-n example.com": "connect example.com:PORT",
    "-U /run/app.sock": "connect unix:/run/app.sock",
    "-U -u /dev/log": "connect unix-dgram:/dev/log",
    "connect -u example.com:53": "connect udp://example.com:53",
    "connect -u --timeout 3 example.com 53": "connect --timeout 3 udp://example.com:53",
    "connect -w3 --crlf tls://example.com:443": "connect --timeout 3 --crlf tls://example.com:443",
    "connect -k -u -- example.com 53": "connect udp://example.com:53",
    "check -z example.com 443": "check example.com:443",
    "connect -p example.com:80": "connect example.com:80",
    "--ssl example.com 443": "connect tls://example.com:443",
    "-l --ssl --ssl-cert c.pem --ssl-key=k.pem 9000": "listen --cert c.pem --key k.pem tls://:9000",
    "--ssl-verify --ssl-trustfile ca.pem h 1": "connect --ca-file ca.pem tls://h:1",
    "--no-shutdown h 1": "connect --at-eof wait h:1",
    "--send-only h 1": "connect --at-eof close h:1 > /dev/null",
}


NETCATS = re.compile(
    r"wireline: (-[-\w]+)(, -[-\w]+)*( and -[-\w]+)? (is|are) netcat's: write wireline (.*)\n"
)

WITHOUT_A_LINE = {
    "-l -e /bin/sh 9000": "-e is netcat's: it runs a program, and wireline runs none",
    "listen --exec /bin/sh :9000": "--exec is netcat's: it runs a program",
    "connect -x proxy:3128 example.com 80": "-x is netcat's: wireline connects without proxies",
    "connect -t example.com 23": "-t is netcat's: wireline does not speak Telnet",
    "listen -m 10 9000": "-m is netcat's: nothing here does the same",
    "-o out --hex-dump dump h 1": "-o is netcat's: nothing here does the same",
    "--sctp h 1": "--sctp is netcat's: nothing here does the same",
    "check -4 h:1": "-4 is netcat's: check tests all addresses of a name: write wireline check h:1",
    "-zu h 1": "-z and -u are netcat's: check tests connections, and UDP has none: "
    "write wireline connect --expect-reply udp://h:1",
}

NOT_OF_NETCAT = {
    "listen -echo :7": "there is no option -echo; write --echo, or see",
    "connect -J h:1": "there is no option -J; see 'wireline connect --help'",
    "relay -p 9000 h:1": "there is no option -p; see 'wireline relay --help'",
    "twin -e a b": "there is no option -e; see 'wireline twin --help'",
}

WITHOUT_A_COMMAND = {
    "example.com 80": "wireline connect example.com:80",
    "::1 80": "wireline connect '[::1]:80'",
    "tls://example.com:443": "wireline connect tls://example.com:443",
}


def error_of(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(shlex.split(line)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_the_error_has_the_line_to_write(capsys: pytest.CaptureFixture[str]) -> None:
    for line, ours in LINES.items():
        err = error_of(line, capsys)
        found = NETCATS.fullmatch(err)
        assert found, err
        assert found[5] == ours
        if "PORT" not in ours:
            parse(shlex.split(re.split(" [<>] ", ours)[0]))  # wrong usage would end it


def test_what_has_no_line_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    for line, complaint in WITHOUT_A_LINE.items():
        assert f"wireline: {complaint}" in error_of(line, capsys)


def test_letters_that_are_not_netcats_have_no_misleading_advice(capsys: pytest.CaptureFixture[str]) -> None:
    for line, complaint in NOT_OF_NETCAT.items():
        assert complaint in error_of(line, capsys)


def test_a_target_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    for line, advice in WITHOUT_A_COMMAND.items():
        assert error_of(line, capsys).endswith(f"is not a command: write {advice}\n")
