"""The other side of shim.c: compiling it, and saying which call is to fail."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import subprocess
from collections.abc import Iterable, Sequence

from tests.torture.children import HERE

KINDS = (
    "recv send sendmsg recvmsg accept connect poll epoll_ctl epoll_wait setsockopt getsockopt getsockname shutdown"
    " close socketpair socket sendfile"
).split()
"""The counters, in the order of the enumeration in shim.c."""

_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

ERRORS: dict[str, Sequence[int]] = {
    "recv": (errno.ECONNRESET, errno.ETIMEDOUT, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.EHOSTUNREACH),
    "recvmsg": (errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOMEM, errno.EAGAIN, errno.EINTR),
    "send": (
        errno.EPIPE,
        errno.ECONNRESET,
        errno.ETIMEDOUT,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EAGAIN,
        errno.EINTR,
    ),
    "sendmsg": (errno.EPIPE, errno.ECONNRESET, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EINTR),
    "accept": (
        *_DESCRIPTORS,
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.EPERM,
        errno.ENETDOWN,
        errno.EAGAIN,
        errno.EINTR,
    ),
    "connect": (
        errno.ECONNREFUSED,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ETIMEDOUT,
        errno.EADDRNOTAVAIL,
        errno.EPERM,
        errno.EINTR,
    ),
    "poll": (errno.ENOMEM, errno.EINTR),
    "epoll_ctl": (errno.ENOSPC, errno.ENOMEM),
    # EBADF and EINVAL are mistakes of the caller; the loops do not survive them, and need not.
    "epoll_wait": (errno.EINTR,),
    "setsockopt": (errno.ENOBUFS, errno.ENOMEM, errno.EINVAL, errno.ENOPROTOOPT),
    "getsockopt": (errno.ENOBUFS, errno.ENOPROTOOPT),
    "getsockname": (errno.ENOBUFS,),
    "shutdown": (errno.ENOTCONN,),
    "close": (errno.EIO, errno.EINTR),
    "socketpair": (errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    "socket": (*_DESCRIPTORS, errno.EACCES),
    "sendfile": (
        errno.EPIPE,
        errno.ECONNRESET,
        errno.ENOMEM,
        errno.EIO,
        errno.EINVAL,  # the file system cannot do it: the file is read
        errno.EAGAIN,
        errno.EINTR,
    ),
}
"""How each call may fail, from its manual page; without those that only a mistake of the caller can bring."""


class Control(ctypes.Structure):
    """``struct control`` of shim.c, mapped from a file."""

    armed: int
    fail_kind: int
    fail_number: int
    fail_errno: int
    fired: int
    immune_count: int
    counts: ctypes.Array[ctypes.c_int]
    immune: ctypes.Array[ctypes.c_int]

    _fields_ = (
        ("armed", ctypes.c_int),
        ("fail_kind", ctypes.c_int),
        ("fail_number", ctypes.c_int),
        ("fail_errno", ctypes.c_int),
        ("fired", ctypes.c_int),
        ("immune_count", ctypes.c_int),
        ("counts", ctypes.c_int * len(KINDS)),
        ("immune", ctypes.c_int * 64),
    )

    @classmethod
    def mapped(cls, path: str) -> Control:
        """The block that the shim in this process listens to."""
        with open(path, "r+b") as file:
            return cls.from_buffer(mmap.mmap(file.fileno(), ctypes.sizeof(cls)))

    def spare(self, descriptors: Iterable[int]) -> None:
        """Leave these descriptors alone."""
        numbers = list(descriptors)
        assert len(numbers) <= len(self.immune), "shim.c has room for 64"
        self.immune[: len(numbers)] = numbers
        self.immune_count = len(numbers)

    def arm(self, kind: str = "", number: int = 0, code: int = 0) -> None:
        """Count from zero, and make call ``number`` of ``kind`` fail, if there is one."""
        for i in range(len(KINDS)):
            self.counts[i] = 0
        self.fail_kind = KINDS.index(kind) if kind else -1
        self.fail_number = number
        self.fail_errno = code
        self.fired = 0
        self.armed = 1

    def disarm(self) -> dict[str, int]:
        """Let every call pass again; how many there were."""
        self.armed = 0
        return {kind: self.counts[i] for i, kind in enumerate(KINDS) if self.counts[i]}


def build(directory: str) -> dict[str, str]:
    """Compile the shim into ``directory``.

    Returns:
        The variables for the environment of a child, which load it there.

    Raises:
        OSError: there is no C compiler.
        subprocess.CalledProcessError: it failed.
    """
    library = os.path.join(directory, "shim.so")
    block = os.path.join(directory, "control")
    source = os.path.join(HERE, "shim.c")
    command = [
        os.environ.get("CC", "cc"),
        "-O1",
        "-fPIC",
        "-shared",
        "-U_FORTIFY_SOURCE",
        "-o",
        library,
        source,
        "-ldl",
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    with open(block, "wb") as file:
        file.write(b"\0" * ctypes.sizeof(Control))
    return {"LD_PRELOAD": library, "WIRELINE_SHIM": block}
