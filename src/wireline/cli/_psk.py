"""Pre-shared keys as a user writes them: ``IDENTITY:KEYHEX``, in a file one a line."""

from __future__ import annotations

from pathlib import Path

# Bytes; what TLS libraries have room for.
_LONGEST_IDENTITY = 255
_LONGEST_KEY = 512


def parse_key(text: str) -> tuple[str, bytes]:
    """Return identity and key. The identity may have colons in it.

    Raises:
        ValueError: it is none; the message does not repeat the key.
    """
    identity, colon, digits = text.rpartition(":")
    # What is no UTF-8 on the command line is not printable either, and could not be encoded.
    if not colon or not identity.isprintable() or not 1 <= len(identity.encode()) <= _LONGEST_IDENTITY:
        raise ValueError(f"write IDENTITY:KEYHEX, the identity with 1 to {_LONGEST_IDENTITY} bytes")
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        raise ValueError(f"the key of {identity!r} is not hexadecimal, two digits a byte") from None
    if not 1 <= len(key) <= _LONGEST_KEY:
        raise ValueError(f"the key of {identity!r} has to have 1 to {_LONGEST_KEY} bytes, and has {len(key)}")
    return identity, key


def read_keys(path: str) -> dict[str, bytes]:
    """Read a file of keys. Empty lines, and those that begin with ``#``, do not count.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is no key, an identity is there twice, or there is none at all.
    """
    keys: dict[str, bytes] = {}
    for number, line in enumerate(_text_of(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            identity, key = parse_key(line.strip())
            if identity in keys:
                raise ValueError(f"{identity!r} is there twice")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        keys[identity] = key
    if not keys:
        raise ValueError(f"there is no key in {path}: write a line IDENTITY:KEYHEX")
    return keys


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8: write a line IDENTITY:KEYHEX for each key") from None


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
