"""The key log: a file of all session keys, for Wireshark. Only its owner may be able to read it."""

from __future__ import annotations

import errno
import os
import ssl
import stat

__all__ = ["create_keylog", "start_keylog"]


def start_keylog(context: ssl.SSLContext, path: str) -> None:
    """Make a context append the keys of its connections to a file.

    Raises:
        OSError: see ``create_keylog``.
    """
    create_keylog(path)
    context.keylog_filename = path
    if os.name == "posix":
        # `ssl` has opened the file by its name, which may have been replaced in between. So it is checked again.
        _require_private(path, os.lstat(path))


def create_keylog(path: str) -> None:
    """Create the file with mode 0600; OpenSSL would create it with 0644.

    An existing file must be a regular file, owned by this user, without access for others, and the path must not end in
    a symbolic link. Otherwise the keys of all connections could go to a file that another user has chosen.

    Raises:
        OSError: the file cannot be written, or another user can open it.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    # O_NONBLOCK: opening a pipe without a reader fails instead of waiting.
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    fd = os.open(path, flags, 0o600)
    try:
        if os.name == "posix":
            _require_private(path, os.fstat(fd))
    finally:
        os.close(fd)


def _require_private(path: str, status: os.stat_result) -> None:
    reason = ""
    if not stat.S_ISREG(status.st_mode):
        reason = "it is not a regular file"
    elif status.st_uid != os.geteuid():
        reason = "it belongs to another user"
    elif status.st_mode & 0o077:
        reason = f"other users can open it (mode {stat.S_IMODE(status.st_mode):04o}): chmod 600 it"
    if reason:
        raise PermissionError(errno.EPERM, f"session keys are not written to this file: {reason}", path)
