"""The faults of a bad network, as a value, and their text for ``--fault``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

__all__ = ["NO_FAULTS", "Faults"]

_SIZE = re.compile(r"(\d+)([kmg]?)", re.IGNORECASE | re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)
_TIME = re.compile(rf"({_NUMBER.pattern})(us|ms|s)", re.IGNORECASE | re.ASCII)
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}

# Seconds and bytes. A larger value is a typing error. Guesses.
_MAX_DELAY = 3600.0
_MAX_SIZE = 1 << 50  # 1 PiB


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of each direction of each connection through a bad network.

    Attributes:
        delay: seconds before a byte arrives. At most 1 MiB is delayed at a time.
        jitter: up to this many more seconds, random for each piece; the order of the bytes is kept.
        rate: the most bytes per second.
        chunk: the most bytes that arrive together; pieces are 1 ms apart.
        reset_after: reset both sides after this many bytes in one direction.
        truncate_after: end the stream after this many bytes; a TLS stream ends without ``close_notify``.
        drop_tls_close: remove the ``close_notify`` at the end of TLS.
        seed: of the random numbers of ``jitter``.
    """

    delay: float = 0.0
    jitter: float = 0.0
    rate: int | None = None
    chunk: int | None = None
    reset_after: int | None = None
    truncate_after: int | None = None
    drop_tls_close: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            TypeError: a value has the wrong type.
            ValueError: a value is out of range.
        """
        for name in ("delay", "jitter"):
            _check_seconds(name, getattr(self, name))
        for name, least in (("rate", 1), ("chunk", 1), ("reset_after", 0), ("truncate_after", 0)):
            _check_bytes(name, getattr(self, name), least)
        if not isinstance(self.drop_tls_close, bool):
            raise TypeError(f"drop_tls_close is a bool, not {self.drop_tls_close!r}")
        if not isinstance(self.seed, int):
            raise TypeError(f"seed is an int, not {self.seed!r}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse faults: ``delay=200ms,jitter=50ms,rate=64k,chunk=1,reset-after=4k,truncate-after=1M``.

        Times have a unit, ``s``, ``ms`` or ``us``. Sizes are in bytes; ``k``, ``M`` and ``G`` stand for 1024, 1024² and
        1024³. ``drop-tls-close`` has no value; ``seed`` is a number.

        Args:
            text: the faults, separated by commas; ``""`` for none.

        Raises:
            TypeError: ``text`` is not a ``str``.
            ValueError: a fault is unknown, given twice, or has a wrong value.
        """
        if not isinstance(text, str):
            raise TypeError(f"faults are parsed from a str, not {type(text).__name__}")
        values: dict[str, float | int | bool] = {}
        for word in filter(None, map(str.strip, text.split(","))):
            key, equals, value = word.partition("=")
            name = key.strip().lower().replace("-", "_")
            if name not in _READERS:
                known = ", ".join(reader.replace("_", "-") for reader in _READERS)
                raise ValueError(f"there is no fault {key.strip()!r}, only {known}")
            if name in values:
                raise ValueError(f"{key.strip()} is given twice")
            if bool(equals) is (name == "drop_tls_close"):
                raise ValueError(
                    f"{key.strip()} takes {'no value' if equals else 'a value: ' + key + '=...'}"
                )
            values[name] = _READERS[name](key.strip(), value.strip())
        return cls(**values)  # type: ignore[arg-type]  # each reader returns what its field takes

    def __str__(self) -> str:
        """The text that ``parse`` accepts."""
        words = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value == field.default and type(value) is type(field.default):
                continue
            name = field.name.replace("_", "-")
            words.append(name if value is True else f"{name}={_format(field.name, value)}")
        return ",".join(words)


def _format(name: str, value: float | int) -> str:
    if name in ("delay", "jitter"):
        return f"{value * 1000:.6f}".rstrip("0").rstrip(".") + "ms"
    if name == "seed":
        return str(value)
    unit = ""
    for larger, factor in _FACTORS.items():
        if value and value % factor == 0:
            unit = larger
    return f"{value // _FACTORS[unit]:.0f}{unit.replace('m', 'M').replace('g', 'G')}"


def _check_seconds(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is a number of seconds, not {value!r}")
    if not 0 <= value <= _MAX_DELAY:
        raise ValueError(f"{name} is 0 to {_MAX_DELAY:g} seconds, not {value!r}")


def _check_bytes(name: str, value: int | None, least: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a number of bytes, not {value!r}")
    if not least <= value <= _MAX_SIZE:
        raise ValueError(f"{name} is at least {least} and at most 1 PiB, not {value!r}")


def _read_seconds(key: str, value: str) -> float:
    if _NUMBER.fullmatch(value):
        raise ValueError(f"{key}={value} has no unit: write {key}={value}ms or {key}={value}s")
    match = _TIME.fullmatch(value)
    seconds = float(match[1]) * _SECONDS[match[2].lower()] if match else math.nan
    if not 0 <= seconds <= _MAX_DELAY:
        raise ValueError(f"{key} is a time, such as 200ms or 1.5s, not {value!r}")
    return seconds


def _read_size(key: str, value: str) -> int:
    number = value[:-1]
    if value[-1:] in ("b", "B") and _SIZE.fullmatch(number):
        raise ValueError(
            f"{key}={value} may be bits or bytes, of 1000 or 1024: write {key}={number}; a k has 1024 bytes"
        )
    match = _SIZE.fullmatch(value)
    if match is None or len(match[1]) > len(str(_MAX_SIZE)):
        raise ValueError(f"{key} is a number of bytes, such as 512, 4k or 1M, not {value!r}")
    return int(match[1]) * _FACTORS[match[2].lower()]


def _read_number(key: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 20):
        raise ValueError(f"{key} is a number, not {value!r}")
    return int(value)


_READERS: dict[str, Callable[[str, str], float | int | bool]] = {
    "delay": _read_seconds,
    "jitter": _read_seconds,
    "rate": _read_size,
    "chunk": _read_size,
    "reset_after": _read_size,
    "truncate_after": _read_size,
    "drop_tls_close": lambda key, value: True,
    "seed": _read_number,
}

NO_FAULTS = Faults()
