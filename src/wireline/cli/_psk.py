"""Pre-shared keys as a user writes them: ``IDENTITY:KEYHEX``, in a file one a line."""

from __future__ import annotations

import os
import stat

# Bytes; what TLS libraries have room for.
_LONGEST_IDENTITY = 255
_LONGEST_KEY = 512


_FORM = f"write IDENTITY:KEYHEX, the identity with 1 to {_LONGEST_IDENTITY} bytes"


def parse_key(text: str) -> tuple[str, bytes]:
    """Return identity and key. The identity may have colons in it.

    Raises:
        ValueError: it is none. The message repeats nothing of it: if the two are swapped, the key is in front.
    """
    identity, colon, digits = text.rpartition(":")
    # What is no UTF-8 on the command line is not printable either, and could not be encoded.
    if not colon or not identity.isprintable() or not 1 <= len(identity.encode()) <= _LONGEST_IDENTITY:
        raise ValueError(_FORM)
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        raise ValueError(
            f"the key, after the last colon, is not hexadecimal, two digits a byte: {_FORM}"
        ) from None
    if not 1 <= len(key) <= _LONGEST_KEY:
        raise ValueError(
            f"the key, after the last colon, has to have 1 to {_LONGEST_KEY} bytes, and has {len(key)}"
        )
    return identity, key


def read_keys(path: str) -> dict[str, bytes]:
    """Read a file of keys. Empty lines, and those that begin with ``#``, do not count.

    Raises:
        OSError: it cannot be read.
        ValueError: others can read it, a line is no key, an identity is there twice, or there is none at all.
    """
    keys: dict[str, bytes] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(_text_of(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            identity, key = parse_key(line.strip())
            if identity in keys:
                raise ValueError(f"the identity is that of line {lines[identity]}")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        keys[identity], lines[identity] = key, number
    if not keys:
        raise ValueError(f"there is no key in {path}: write a line IDENTITY:KEYHEX")
    return keys


def _text_of(path: str) -> str:
    with open(path, "rb") as file:
        _require_privacy(path, os.fstat(file.fileno()))
        data = file.read()
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8: write a line IDENTITY:KEYHEX for each key") from None


def _require_privacy(path: str, status: os.stat_result) -> None:
    """Refuse a file that others than its owner can open, as ssh and libpq do.

    One that belongs to the system may be readable by its group, which is how a secret is given to a service.

    Raises:
        ValueError: they can.
    """
    if os.name != "posix" or not stat.S_ISREG(status.st_mode):
        return  # Windows has no such modes, and a pipe is open only to the processes that inherited it
    mode = stat.S_IMODE(status.st_mode)
    forbidden = 0o037 if status.st_uid == 0 and os.geteuid() != 0 else 0o077
    if mode & forbidden:
        raise ValueError(
            f"{path} is open to others (mode {mode:04o}), and so would be its keys: chmod 600 {path}"
        )


def read_key(path: str) -> tuple[str, bytes]:
    """Read a file with the one key of a client.

    Raises:
        OSError: it cannot be read.
        ValueError: there is none in it, or more than one.
    """
    keys = read_keys(path)
    if len(keys) > 1:
        raise ValueError(f"there are {len(keys)} keys in {path}, and a client needs exactly one")
    return next(iter(keys.items()))
