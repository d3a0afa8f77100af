"""The path under which a user imports a name: ``wireline.net.Socket``, not ``wireline.net._socket.Socket``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType

__all__ = ["load_when_used", "publish"]

_published: set[str] = set()


def publish(module: str, namespace: Mapping[str, object], names: Iterable[str]) -> None:
    """Set ``__module__`` of a public module's classes and functions to that module.

    Tracebacks, ``repr``, ``help`` and pickles then show the public path. A name that several public modules offer keeps
    the first one. The price: ``inspect.getsource`` of a class reads the file of ``__module__`` and does not find it;
    of functions and methods it does.
    """
    _published.add(module)
    for name in names:
        value = namespace[name]
        # Not a constant: an enum member or an `ipaddress` object would take the attribute, or refuse it.
        if not isinstance(value, FunctionType | type) or not value.__module__.startswith("wireline."):
            continue
        if value.__module__ not in _published:
            value.__module__ = module


def load_when_used(
    module: str, namespace: dict[str, object], homes: Mapping[str, tuple[str, str]]
) -> Callable[[str], object]:
    """Return the ``__getattr__`` of a public module, which imports some of its names when they are used first.

    Their modules need ``dataclasses`` and ``logging``, which take as long as the rest of ``import wireline.net``.

    Args:
        module: the public module.
        namespace: its ``globals()``.
        homes: for each name the module that defines it, and its public module.
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        defined, public = homes[name]
        value: object = getattr(importlib.import_module(defined), name)
        namespace[name] = value
        publish(public, namespace, (name,))
        return value

    return load
