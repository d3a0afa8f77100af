"""The page "Coming from netcat, socat, stunnel and s_client", as its tests read it.

A line on the page is a code span in the second or third column of a table. Lines below each other belong together, such
as a server and its client; the word "or" begins the lines of another program.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[3] / "docs/howto/from-netcat.md"

PROGRAMS = {
    "nc": ("nc.openbsd", "netcat-openbsd"),
    "ncat": ("ncat", "ncat"),
    "socat": ("socat", "socat"),
    "openssl": ("openssl", "openssl"),
    "stunnel": ("stunnel", "stunnel4"),
    "nginx": ("/usr/sbin/nginx", "nginx"),
    "ssh": ("ssh", "openssh-client"),
    "systemd-socket-activate": ("systemd-socket-activate", "systemd"),
}
"""The programs in the lines: the file of each, and its Debian package."""


class Task(NamedTuple):
    """A row of a table.

    Attributes:
        title: the first column.
        theirs: the lines of each program that does it.
        ours: the lines of ``wireline``; empty if there are none.
        difference: the last column.
    """

    title: str
    theirs: list[list[str]]
    ours: list[str]
    difference: str

    def lines(self) -> list[str]:
        """Those of all programs."""
        return [line for each in (*self.theirs, self.ours) for line in each]


def tasks() -> list[Task]:
    """All rows of the page."""
    text = PAGE.read_text(encoding="utf-8")
    rows = [re.split(r" ?(?<!\\)\| ?", row)[1:-1] for row in re.findall(r"^\|.*\|$", text, re.MULTILINE)]
    rows = [row for row in rows if row[0] != "task" and set(row[0]) != {"-"}]
    return [
        Task(
            title,
            [lines for each in theirs.split("<br>or<br>") if (lines := _lines(each))],
            _lines(ours),
            last,
        )
        for title, theirs, ours, last in rows
    ]


def files() -> list[str]:
    """The commands that write files which lines read."""
    return re.findall(r"^(cat > .*?\nEND\n)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def alternative_to_exec() -> str:
    """The line to write in place of ``--exec``."""
    found = re.search(r"^(systemd-socket-activate .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return found[1]


def _lines(cell: str) -> list[str]:
    spans: list[str] = re.findall(r"`([^`]+)`", cell)
    return [span.replace("\\|", "|") for span in spans]


def programs_of(line: str) -> set[str]:
    """The programs of a line, those in quotes too."""
    words = re.findall(r"(?<![\w./-])([a-z-]+)(?= )", line)
    return {word for word in words if word in PROGRAMS or word == "wireline"}
