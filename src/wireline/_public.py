"""The path under which a user imports a name: ``wireline.net.Socket``, not ``wireline.net._socket.Socket``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import FunctionType

__all__ = ["publish"]

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
