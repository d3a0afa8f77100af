"""The colours on a terminal can be read on a dark and on a light background."""

from __future__ import annotations

import os
import re

import pytest

from tests.cli.command import accept, connect, reset, tcp_server
from tests.cli.terminal import on_terminal
from tests.cli.test_check_tls import serving
from tests.cli.test_terminal import LISTENING
from tests.tls import certificates

LEGIBLE = {0: "reset", 1: "bold", 2: "dim", 31: "red", 32: "green", 35: "magenta"}
"""Codes of SGR that the command may send: no colour of its own, no background, and no white, black or yellow. Many
terminals show bold yellow as the bright one, which vanishes on white."""


def codes(text: str) -> set[int]:
    return {int(code or 0) for sent in re.findall(r"\x1b\[([0-9;]*)m", text) for code in sent.split(";")}


@pytest.mark.parametrize("term", ["xterm", "xterm-256color"])
def test_check_has_legible_colours(term: str) -> None:
    seen = set()
    with serving(certificates.chained()) as target:
        for words in (["--ca-file", certificates.ca_file()], []):
            with on_terminal("check", *words, target, TERM=term, COLORTERM="truecolor") as command:
                command.end()
                seen |= codes(command.raw)
    assert seen == {0, 1, 2, 31, 32}


def test_every_verdict_of_check_is_legible(monkeypatch: pytest.MonkeyPatch) -> None:
    console = pytest.importorskip("rich.console")
    from wireline.cli.check._tables import _VERDICTS, _verdict

    for word in _VERDICTS:
        screen = console.Console(force_terminal=True, color_system="truecolor")
        with screen.capture() as capture:
            screen.print(_verdict(f"{word}: tls://h:1"))
        assert codes(capture.get()) <= set(LEGIBLE), word


def test_relay_and_connect_have_legible_colours() -> None:
    read, write = os.pipe()
    with (
        tcp_server() as (server, target),
        on_terminal("relay", "--stats", "127.0.0.1:0", target) as relay,
        on_terminal("connect", target, stdin=read) as command,
    ):
        os.close(read)
        port = int(relay.see(LISTENING)[1])
        with connect(port) as client, accept(server) as first, accept(server) as second:
            client.sendall(b"x")
            relay.see("1 open of 1")
            os.write(write, b"x")
            command.see("1 B sent")
            for peer in (first, second):
                reset(peer)
        relay.see("0 open of 1")
        os.close(write)
        command.end()
        seen = codes(relay.raw) | codes(command.raw)
    assert {1, 2, 31} <= seen <= set(LEGIBLE)
