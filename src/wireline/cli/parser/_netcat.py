"""Command lines of netcat and ncat: the line of ``wireline`` that does the same.

The letters mean something else here or nothing, and the nearest option by spelling would mislead: ``-p`` is no
``--psk``. A command line with such letters is wrong usage, and the error has the line to write.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from wireline.cli.parser._usage import Parser

_WITHOUT_VALUE = frozenset("46CNUdklnrtuvz")
_WITH_VALUE = frozenset("IMOPTVXceigmopqswx")

_IMPOSSIBLE = {
    "c": "it runs a program, and wireline runs none: write the server in Python, or use socat",
    "e": "it runs a program, and wireline runs none: write the server in Python, or use socat",
    "x": "wireline connects without proxies",
    "X": "wireline connects without proxies",
    "t": "wireline does not speak Telnet",
}

# By command: what netcat does there, and this one does not.
_IMPOSSIBLE_HERE = {
    ("check", "u"): "check tests connections, and UDP has none: write {line}",
    ("check", "4"): "check tests all addresses of a name: write {line}",
    ("check", "6"): "check tests all addresses of a name: write {line}",
}

_POSSIBLE = frozenset("46CNUdklnpqsuvwz") | {"no-shutdown", "send-only", "ssl"}

_LONG = {
    "--listen": "l",
    "--udp": "u",
    "--unixsock": "U",
    "--exec": "e",
    "--sh-exec": "c",
    "--lua-exec": "e",
    "--keep-open": "k",
    "--wait": "w",
    "--source-port": "p",
    "--source": "s",
    "--nodns": "n",
    "--verbose": "v",
    "--telnet": "t",
    "--proxy": "x",
    "--recv-only": "d",
    "--max-conns": "m",
    "--idle-timeout": "i",
    "--no-shutdown": "no-shutdown",
    "--send-only": "send-only",
    "--ssl": "ssl",
    "--ssl-verify": "ssl",
    "--output": "o",
    "--append-output": "append-output",
    "--hex-dump": "hex-dump",
    "--broker": "broker",
    "--allow": "allow",
    "--deny": "deny",
    "--sctp": "sctp",
}
"""Options of ncat, and the letter, or the word, that stands for each below."""

_LONG_WITH_VALUE = frozenset({"append-output", "hex-dump", "allow", "deny"})

_RENAMED = {
    "--ssl-cert": "--cert",
    "--ssl-key": "--key",
    "--ssl-trustfile": "--ca-file",
    "--ssl-servername": "--sni",
    "--ssl-alpn": "--alpn",
    "--ssl-ciphers": "--ciphers",
}
"""Options of ncat that have another name here; all take a value."""


class Advice(NamedTuple):
    """What to tell a user of netcat.

    Attributes:
        options: the options of netcat that were used.
        line: the command line to write; ``""`` if there is none.
        reason: why there is none.
    """

    options: list[str]
    line: str
    reason: str = ""

    def __str__(self) -> str:
        *others, last = self.options or [""]
        names = f"{', '.join(others)} and {last} are" if others else f"{last} is"
        return f"{names} netcat's: {self.reason or f'write {self.line}'}"


def advise(parser: Parser, words: Sequence[str]) -> Advice | None:
    """The advice for a command line with options of netcat; None if it has none."""
    command = words[0] if words and words[0] in parser.commands else ""
    if command not in ("", "connect", "listen", "check"):
        return None
    reader = _Reader(parser, command)
    if not reader.read(words[1 if command else 0 :]) or not reader.letters:
        return None  # an option is unknown: the general error is better
    return reader.advice()


def advise_command(words: Sequence[str]) -> str:
    """The advice for a target without a command before it; ``""`` if the words are no target."""
    target = words[0] if _has_port(words[0]) else ""
    if len(words) == 2 and words[1].isdigit():
        target = _host_port(words[0], words[1])
    return (
        f"{words[0]!r} is not a command: write {shlex.join(['wireline', 'connect', target])}"
        if target
        else ""
    )


class _Reader:
    """Splits a command line into options of netcat, options of ours, and the rest."""

    def __init__(self, parser: Parser, command: str) -> None:
        self._parser = parser
        self._command = command
        self._own = _options_with_values(parser, command)
        self.names: list[str] = []
        self.letters: dict[str, str] = {}
        self._kept: list[str] = []
        self._rest: list[str] = []

    def read(self, words: Sequence[str]) -> bool:
        """Whether all options are known."""
        left = iter(words)
        for word in left:
            name = word.partition("=")[0]
            if word == "--":
                self._rest += left
            elif name in self._own:
                self._kept += [word, *([next(left, "")] if self._own[name] and name == word else [])]
            elif name in _LONG or name in _RENAMED:
                self._take_long(word, left)
            elif word.startswith("-") and word != "-":
                if not self._take_letters(word, left):
                    return False
            else:
                self._rest.append(word)
        return True

    def _take_long(self, word: str, left: Iterator[str]) -> None:
        name, equals, value = word.partition("=")
        letter = _LONG.get(name, "ssl")
        self.names.append(name)
        if name in _RENAMED:
            self._kept += [_RENAMED[name], value or next(left, "")]
            value, equals = "", "="
        has_value = letter in _WITH_VALUE or letter in _LONG_WITH_VALUE
        self._set(letter, value if equals or not has_value else next(left, ""))

    def _set(self, letter: str, value: str) -> None:
        # `-p HOST:PORT`: the port of netcat's -p is missing, and the word is the target.
        if letter == "p" and value and not value.isdigit():
            self._rest.append(value)
            value = ""
        self.letters[letter] = value

    def _take_letters(self, word: str, left: Iterator[str]) -> bool:
        if f"-{word}" in self._own:  # a dash is missing
            return False
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in _WITH_VALUE:
                self._set(letter, letters or next(left, ""))
                letters = ""
            elif letter in _WITHOUT_VALUE:
                self._set(letter, "")
            else:
                return False
            self.names.append(f"-{letter}")
        return True

    def advice(self) -> Advice:
        """The line of ours."""
        for letter in self.letters:
            if letter not in _POSSIBLE:
                name = next(name for name in self.names if _LONG.get(name, name[1:]) == letter)
                return Advice([name], "", _IMPOSSIBLE.get(letter, "nothing here does the same"))
        command = self._command or (
            "listen" if "l" in self.letters else "check" if "z" in self.letters else "connect"
        )
        found = (_IMPOSSIBLE_HERE.get((command, letter)) for letter in self.letters)
        reason = next(filter(None, found), "")
        if command == "check" and "u" in self.letters:
            command = "connect"
            self._kept.append("--expect-reply")
        target = self._target(command)
        if "ssl" in self.letters and "://" not in target:
            target = f"tls://{target}"
        line = shlex.join(["wireline", command, *_options(command, self.letters), *self._kept, target])
        if "d" in self.letters:
            line += " < /dev/null"
        if "send-only" in self.letters:
            line += " > /dev/null"
        return Advice(self.names, line, reason.format(line=line))

    def _target(self, command: str) -> str:
        *host, last = self._rest or [""]
        if "U" in self.letters:
            return f"{'unix-dgram' if 'u' in self.letters else 'unix'}:{last or '/PATH'}"
        scheme = "udp://" if "u" in self.letters else ""
        if not host and _has_port(last):
            return last if "://" in last else scheme + last
        if command == "listen":
            name, port = self._listen_address(host, last)
        else:
            name, port = (host[0], last) if host else (last or "HOST", "PORT")
        return f"{scheme}{_host_port(name, port)}"

    def _listen_address(self, host: list[str], last: str) -> tuple[str, str]:
        """The name and the port: ``-l -p 9000``, ``-l 9000``, ``-l HOST 9000``, ``-l -s HOST -p 9000``."""
        if not host and not last.isdigit():
            host, last = [last], ""
        return self.letters.get("s") or "".join(host[:1]), self.letters.get("p") or last or "PORT"


def _has_port(text: str) -> bool:
    """Whether it is a target as it is."""
    return "://" in text or text.startswith(("unix:", "[")) or text.count(":") == 1


def _host_port(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _options(command: str, letters: Mapping[str, str]) -> Iterator[str]:
    """The options of ours that do what the letters do. Those that are left out are so anyway here: ``-n``, ``-v``."""
    if "w" in letters:
        yield from ("--timeout", letters["w"])
    if command == "connect":
        yield from _options_of_connect(letters)
    if command == "listen" and "k" in letters:
        yield "--keep"
    if command != "check" and "C" in letters:
        yield "--crlf"


def _options_of_connect(letters: Mapping[str, str]) -> Iterator[str]:
    yield from (f"-{letter}" for letter in "46v" if letter in letters)
    for letter, value in (("N", "half-close"), ("no-shutdown", "wait"), ("send-only", "close")):
        if letter in letters:
            yield from ("--at-eof", value)
    seconds = letters.get("q", "")
    if seconds.isdigit():
        yield from ("--quit-after", seconds) if int(seconds) else ("--at-eof", "close")
    if letters.get("p") or letters.get("s"):
        yield from ("--source", _host_port(letters.get("s", ""), letters.get("p") or "0"))


def _options_with_values(parser: Parser, command: str) -> dict[str, bool]:
    """The options that exist here, and whether each takes a value."""
    commands = [command] if command else ["connect", "listen"]
    actions = [action for each in commands for action in parser.commands[each].arguments]
    return {name: action.nargs != 0 for action in actions for name in action.option_strings}
