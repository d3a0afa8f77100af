"""Changes of a text that keep each line where it is."""

from __future__ import annotations


class Edits:
    """Spans of a text, and what stands there instead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._spans: dict[tuple[int, int], str] = {}

    def replace(self, start: int, end: int, new: str) -> None:
        """Replace a span by a text without newlines. Its own newlines, which are between parentheses, stay."""
        self._spans[start, end] = new + "\n" * self._text.count("\n", start, end)

    def replace_word(self, start: int, end: int, new: str) -> None:
        """Replace a word and the spaces after it."""
        while self._text[end : end + 1] in (" ", "\t"):
            end += 1
        self.replace(start, end, new)

    def apply(self) -> str:
        """The new text. A span inside another one counts for nothing; a changed line does not end with spaces."""
        parts, at, changed = [], 0, set()
        for (start, end), new in sorted(self._spans.items(), key=lambda each: (each[0][0], -each[0][1])):
            if start < at:
                continue
            parts += [self._text[at:start], new]
            at = end
            changed.add(self._text.count("\n", 0, end) + 1)
        lines, before = "".join([*parts, self._text[at:]]).split("\n"), self._text.split("\n")
        for number in changed:
            if before[number - 1] == before[number - 1].rstrip():
                lines[number - 1] = lines[number - 1].rstrip()
        return "\n".join(lines)
