"""A program as text: lines, and the imports that they need."""

from __future__ import annotations

import argparse


def call(name: str, *words: object, **named: object) -> str:
    """A call as one writes it. What is None or ``""`` among the named is left to its default."""
    arguments = [literal(word) for word in words]
    arguments += [
        f"{key}={literal(value)}" for key, value in named.items() if value is not None and value != ""
    ]
    return f"{name}({', '.join(arguments)})"


def literal(value: object) -> str:
    """A value as one writes it."""
    if isinstance(value, Name):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    text = repr(value)
    # What Python puts in single quotes has none inside; with double ones it looks like the rest.
    return f'"{text[1:-1]}"' if text.startswith("'") and '"' not in text else text


class Name(str):
    """A name in the program, and no text."""

    __slots__ = ()


class Program:
    """Lines of a program, and what they need."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self._imports: dict[str, set[str]] = {}
        self._modules: set[str] = set()
        self._parts: list[str] = []

    def use(self, module: str, *names: str) -> None:
        """Import a module, or names from it."""
        if names:
            self._imports.setdefault(module, set()).update(names)
        else:
            self._modules.add(module)

    def add(self, text: str, indent: int = 0) -> None:
        """Add lines; ``indent`` blocks deep."""
        margin = "    " * indent
        self._parts += [f"{margin}{line}" if line else "" for line in text.strip("\n").split("\n")]

    def define(self, text: str) -> None:
        """Add a function, and the blank lines around it."""
        self._parts += ["", *text.strip("\n").split("\n"), "", ""]

    def __str__(self) -> str:
        plain = [f"import {name}" for name in sorted(self._modules)]
        ours = [
            f"from {module} import {', '.join(sorted(names))}"
            for module, names in sorted(self._imports.items())
        ]
        blocks = ["\n".join(block) for block in (plain, ours) if block]
        body = "\n".join(self._parts).strip("\n")
        gap = "\n\n\n" if body.startswith("def ") else "\n\n"
        return "\n\n".join(blocks) + gap + body + "\n"
