"""Text of peers, certificates and files without a way to control the terminal."""

from __future__ import annotations


def sanitize_for_terminal(text: str, max_length: int | None = None) -> str:
    r"""Escape each unprintable character, as in ``\x1b`` and ``\n``; cut longer text."""
    clean = text if text.isprintable() else "".join(map(_escaped, text))
    return clean if max_length is None or len(clean) <= max_length else f"{clean[:max_length]}..."


def sanitize_lines(text: str) -> str:
    """The same for text of several lines, and with tabs."""
    return "".join(each if each in "\n\t" else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
