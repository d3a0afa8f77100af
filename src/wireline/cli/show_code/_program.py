"""The text of a program: its lines, and the imports that they need."""

from __future__ import annotations

import argparse


def call(name: str, *arguments: object, **named: object) -> str:
    """The text of a call. Named arguments that are None or ``""`` are left out."""
    texts = [literal(argument) for argument in arguments]
    texts += [f"{key}={literal(value)}" for key, value in named.items() if value is not None and value != ""]
    return f"{name}({', '.join(texts)})"


def literal(value: object) -> str:
    """The text of a value."""
    if isinstance(value, Name):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    text = repr(value)
    # A text that repr puts in single quotes contains none: double quotes are possible, and the common style.
    return f'"{text[1:-1]}"' if text.startswith("'") and '"' not in text else text


class Name(str):
    """The name of a variable, which `literal` does not put in quotes."""

    __slots__ = ()


class Program:
    """The lines of a program, and their imports."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self._names: dict[str, set[str]] = {}
        self._modules: set[str] = set()
        self._lines: list[str] = []

    def use(self, module: str, *names: str) -> None:
        """Import a module, or names from it."""
        if names:
            self._names.setdefault(module, set()).update(names)
        else:
            self._modules.add(module)

    def add(self, text: str, indent: int = 0) -> None:
        """Add lines, indented by ``indent`` blocks."""
        margin = "    " * indent
        self._lines += [f"{margin}{line}" if line else "" for line in text.strip("\n").split("\n")]

    def define(self, text: str) -> None:
        """Add a function, with blank lines around it."""
        gap = [] if self._lines[-2:] == ["", ""] else [""]
        self._lines += [*gap, *text.strip("\n").split("\n"), "", ""]

    def __str__(self) -> str:
        modules = [f"import {name}" for name in sorted(self._modules)]
        names = [
            f"from {module} import {', '.join(sorted(names))}"
            for module, names in sorted(self._names.items())
        ]
        blocks = ["\n".join(block) for block in (modules, names) if block]
        body = "\n".join(self._lines).strip("\n")
        gap = "\n\n\n" if body.startswith("def ") else "\n\n"
        return "\n\n".join(blocks) + gap + body + "\n"
