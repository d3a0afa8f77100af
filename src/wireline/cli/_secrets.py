"""Secrets of the command line: from files, descriptors, the environment or a prompt, never from arguments."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable

from wireline.cli._printable import sanitize_for_terminal


def is_descriptor(path: str) -> bool:
    """Whether a path is ``fd:N``."""
    kind, _, number = path.partition(":")
    return kind == "fd" and number.isascii() and number.isdigit()


def read_secret_file(path: str) -> bytes:
    """Read a file, or with ``fd:N`` a descriptor that this process has inherited.

    Raises:
        OSError: it cannot be read.
        ValueError: other users can read it.
    """
    is_fd = is_descriptor(path)
    number = path.partition(":")[2]
    try:
        # The standard descriptors are in use afterwards: standard input is then at its end.
        with open(int(number) if is_fd else path, "rb", closefd=not is_fd or int(number) > 2) as file:
            _require_privacy(path, os.fstat(file.fileno()))
            return file.read()
    except OSError as error:
        if not is_fd:
            raise
        raise OSError(error.errno, error.strerror, path) from error


def _require_privacy(path: str, status: os.stat_result) -> None:
    """Refuse a file that other users than its owner can open, as ssh and libpq do.

    A file owned by root may be readable by its group: services get their secrets like that.

    Raises:
        ValueError: other users can open it.
    """
    if os.name != "posix" or not stat.S_ISREG(status.st_mode):
        return  # Windows has no such modes, and a pipe is open only to the processes that inherited it
    mode = stat.S_IMODE(status.st_mode)
    forbidden = 0o037 if status.st_uid == 0 and os.geteuid() != 0 else 0o077
    if mode & forbidden:
        file = "FILE" if path.startswith("fd:") else path
        raise ValueError(
            f"other users can open {path} (mode {mode:04o}) and read its keys: run chmod 600 {file}"
        )


def key_password(source: str, key: str) -> bytes | Callable[[], str | bytes]:
    """The password that ``--key-password`` names; a function for the prompt, which is shown once, if it is needed.

    When the key is read again, a function reads the file again.

    Args:
        source: where the password is.
        key: the file of the key, for the prompt.

    Raises:
        OSError: the file or descriptor cannot be read.
        ValueError: other users can read the file, or the environment has no such variable.
    """
    kind, _, name = source.partition(":")
    if kind == "prompt":
        return functools.cache(functools.partial(_ask, key))
    if kind == "env":
        value = os.environb.get(os.fsencode(name)) if os.supports_bytes_environ else os.environ.get(name)
        if value is None:
            raise ValueError(f"there is no environment variable {name}, which --key-password names")
        return value if isinstance(value, bytes) else value.encode()
    path = source if kind == "fd" else name
    password = _password_in(path)  # now, so that an error is found although the key may have no password
    # A pipe can be read only once.
    return (lambda: _password_in(path)) if kind == "file" and os.path.isfile(path) else password


def _password_in(path: str) -> bytes:
    # An editor ends the line.
    return read_secret_file(path).removesuffix(b"\n").removesuffix(b"\r")


def _ask(key: str) -> str:
    """Ask on the terminal.

    Raises:
        OSError: there is none. Standard input is no substitute: it is data for the peer.
    """
    import getpass  # only a prompt needs it

    try:
        os.close(os.open("/dev/tty" if os.name == "posix" else "CONIN$", os.O_RDWR))
    except OSError as error:
        raise OSError(
            "there is no terminal to ask for the password of the key: use --key-password file:PATH, fd:N or env:NAME"
        ) from error
    return getpass.getpass(f"password of the key {sanitize_for_terminal(key)}: ")
