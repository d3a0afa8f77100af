"""``wireline check --nagios`` and ``--prometheus``."""

from __future__ import annotations

import re
import socket
from datetime import UTC, datetime

import pytest

from tests.cli.command import tcp_server
from tests.cli.test_check import answers
from tests.cli.test_check_tls import serving
from tests.tls import certificates
from wireline.cli import main
from wireline.cli._outcome import ExitCode
from wireline.cli.check._monitoring import format_nagios, format_prometheus
from wireline.cli.check._report import Report

CHECK = ["check", "--first", "--ca-file", certificates.ca_file()]


def test_nagios_has_a_code_for_each_state(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The words before the target, and the code of Nagios."""
    with serving(certificates.ending()) as ending, serving(certificates.expired()) as expired:
        for words, code, status in (
            ([ending], 0, "OK"),
            (["--days", "21", ending], 1, "WARNING"),
            (["--days", "21", expired], 2, "CRITICAL"),
            (["--days", "21", ending, expired], 2, "CRITICAL"),
            (["--cert", "/none.pem", ending], 3, "UNKNOWN"),
        ):
            assert main([*CHECK, "--nagios", *words]) == code, words
            out, err = capfd.readouterr()
            assert (out.splitlines()[0].startswith(f"WIRELINE {status} - "), err) == (True, ""), out
    with tcp_server() as (server, _):
        port = server.getsockname()[1]
        monkeypatch.setattr(socket, "getaddrinfo", answers(("127.0.0.1", port), ("127.0.0.2", port)))
        assert main(["check", "--nagios", f"many.test:{port}"]) == 1
    assert capfd.readouterr().out.startswith(f"WIRELINE WARNING - 127.0.0.2:{port}, an address of")


def test_nagios_gets_performance_data(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(certificates.ending()) as target:
        main([*CHECK, "--nagios", "--days", "3", target])
        (line,) = capfd.readouterr().out.splitlines()
        assert re.search(r" \| 'time'=0\.\d+s;;;0 'days'=4;3:;0:$", line)
        with tcp_server() as (_, other):
            main(
                [
                    *CHECK,
                    "--nagios",
                    "--tls",
                    "--timeout",
                    "1",
                    target,
                    f"unix:/none{other}",
                    "--sni",
                    "localhost",
                ]
            )
    line, *problems = capfd.readouterr().out.splitlines()
    assert line.startswith("WIRELINE CRITICAL - 1 of 2 targets | ")
    assert f"'{target} days'=4;0:;0:" in line
    assert len(problems) == 1


def hostile() -> Report:
    report = Report('unix:/a"b|c', datetime.now(UTC), 0)
    report.add_problem(ExitCode.HANDSHAKE, "the subject is a|time=0")
    return report


def test_text_of_a_peer_adds_no_data() -> None:
    assert format_nagios([hostile()]).count("|") == 1
    assert 'wireline_check_success{target="unix:/a\\"b|c"} 0' in format_prometheus([hostile()]).splitlines()


def test_prometheus_gets_metrics(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(certificates.server()) as good, serving(certificates.expired()) as bad:
        assert main([*CHECK, "--prometheus", good, bad]) == 5
    out, err = capfd.readouterr()
    assert err.startswith("wireline: the certificate of")
    assert f'wireline_check_success{{target="{good}"}} 1' in out
    assert f'wireline_check_exit_code{{target="{bad}"}} 5' in out
    expires = re.findall(
        r'not_after_timestamp_seconds\{target="(.*?)",.*index="0",.*\} (\d+)$', out, re.MULTILINE
    )
    assert [target for target, _ in expires] == [good, bad]
    assert int(expires[1][1]) < datetime.now(UTC).timestamp() < int(expires[0][1])
    names = [line.split()[2] for line in out.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names)), "each metric is in one group"
    for line in out.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) .+|wireline_check_\w+\{(\w+="[^"]*",?)+\} [0-9.]+', line), line
