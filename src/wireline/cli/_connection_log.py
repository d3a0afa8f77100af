"""``--log-format``: a line on standard error for each event of a connection, as text or as JSON."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from wireline.cli._stderr import print_stderr

Fields = Mapping[str, "str | int | float | None"]


class ConnectionLog:
    """The log of one command."""

    def __init__(self, log_format: str) -> None:
        self._line: Callable[[Fields], str] = _json_line if log_format == "json" else _text_line

    def write(self, event: str, fields: Fields) -> None:
        """Write a line.

        Args:
            event: ``"open"``, ``"close"``, ``"refused"``, ``"handshake-failed"`` or ``"connect-failed"``.
            fields: see ``FIELDS``; those that are missing are not known.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        print_stderr(self._line({"time": now, "event": event, **{name: fields.get(name) for name in FIELDS}}))

    @contextlib.contextmanager
    def with_refusals(self) -> Iterator[None]:
        """Also write the clients that the server has refused before there was a handler, while the block runs."""
        log = logging.getLogger("wireline")
        handler, level = _Refusals(self), log.level
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            yield
        finally:
            log.setLevel(level)
            log.removeHandler(handler)


FIELDS = ("peer", "local", "target", "bytes_in", "bytes_out", "seconds", "error")
"""The fields of a line after its time and event. Bytes are those from the client and to the client."""


class _Refusals(logging.Handler):
    """Reads the records of `wireline.net.serve` about clients that found it full, ten a second at most."""

    def __init__(self, log: ConnectionLog) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        fields = {name: value for name, value in vars(record).items() if name in FIELDS}
        kind, _, reason = str(fields.get("error")).partition(": ")
        left_out = getattr(record, "left_out", None)
        if left_out is not None and kind == "connection refused":
            self._log.write("refused", {**fields, "error": f"{reason} ({left_out} more clients)"})
        elif getattr(record, "event", None) == "refused":
            self._log.write("refused", {**fields, "bytes_in": 0, "bytes_out": 0})


def _json_line(fields: Fields) -> str:
    # Everything above ASCII is escaped, and all control characters but DEL.
    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in fields.items()}
    return json.dumps(rounded).replace("\x7f", "\\u007f")


def _text_line(fields: Fields) -> str:
    """The time, the event, and the fields that are known as ``name=value``."""
    time, event, *others = fields.items()
    words = [f"{name}={_word(value)}" for name, value in others if value is not None]
    return " ".join([f"{time[1]}", f"{event[1]}", *words])


def _word(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    is_plain = text.isprintable() and not set(text) & set(' "=\\')
    return text if text and is_plain else f'"{"".join(map(_escape, text))}"'


def _escape(character: str) -> str:
    """Escape what ends a quoted text, and what a terminal or a reader of lines takes for more than text."""
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
