"""Pre-shared keys as a user writes them: ``IDENTITY:KEYHEX``, in a file one per line."""

from __future__ import annotations

import re

from wireline.cli._secrets import read_secret_file

# Bytes: the limits of common TLS libraries.
_MAX_IDENTITY = 255
_MAX_KEY = 512


_FORM = f"write IDENTITY:KEYHEX, the identity with 1 to {_MAX_IDENTITY} bytes"


def parse_key(text: str) -> tuple[str, bytes]:
    """Return identity and key. The identity may contain colons.

    Raises:
        ValueError: the text has another form. The message quotes none of it: the parts may be swapped.
    """
    identity, colon, digits = text.rpartition(":")
    # Bytes of the command line that are not UTF-8 are not printable, and could not be encoded.
    if not colon or not identity.isprintable() or not 1 <= len(identity.encode()) <= _MAX_IDENTITY:
        raise ValueError(_FORM)
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        raise ValueError(
            f"the key, after the last colon, is not hexadecimal with two digits per byte: {_FORM}"
        ) from None
    if not 1 <= len(key) <= _MAX_KEY:
        raise ValueError(f"the key, after the last colon, has {len(key)} bytes: 1 to {_MAX_KEY} are possible")
    return identity, key


def read_keys(path: str) -> dict[str, bytes]:
    """Read a file of keys, or with ``fd:N`` a descriptor. Empty lines, and lines that begin with ``#``, are ignored.

    Raises:
        OSError: the file cannot be read.
        ValueError: other users can read it, a line is not a key, an identity occurs twice, or there is no key.
    """
    keys: dict[str, bytes] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            identity, key = parse_key(line.strip())
            if identity in keys:
                raise ValueError(f"the identity is the same as in line {lines[identity]}")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        keys[identity], lines[identity] = key, number
    if not keys:
        raise ValueError(f"there is no key in {path}: write a line IDENTITY:KEYHEX")
    return keys


def _read_text(path: str) -> str:
    try:
        data = read_secret_file(path)
    except FileNotFoundError:
        if re.search(r":[0-9A-Fa-f]{8,}$", path) is None:
            raise
        raise ValueError(
            "this option is the path of a file of keys: a key in an argument can be seen by all users of this machine"
        ) from None
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: write a line IDENTITY:KEYHEX for each key") from None


def read_key(path: str) -> tuple[str, bytes]:
    """Read a file with the one key of a client.

    Raises:
        OSError: the file cannot be read.
        ValueError: there is not exactly one key in it.
    """
    keys = read_keys(path)
    if len(keys) > 1:
        raise ValueError(f"there are {len(keys)} keys in {path}, and a client needs exactly one")
    return next(iter(keys.items()))
