"""One poller for all sockets of a loop, itself watched by the loop as a single descriptor.

Two reasons. Speed: the loop handles one event a turn, however many sockets are readable, and we call their readers from
a plain dictionary. And truth: when a descriptor reports an error together with data (a reset after the last bytes, an
ICMP error on a datagram socket), libuv calls its watcher once and then drops it without a word, so a reader that was
still to hear of the error would sleep for ever under uvloop. epoll(7) goes on telling.

Where there is no epoll the loop watches every descriptor itself.
"""

from __future__ import annotations

import select
from collections.abc import Callable

from wireline.asyncnet._asyncio import Loop

__all__ = ["unwatch", "watch"]

# Events taken at once; what is left comes in the next turn of the loop. A guess: enough for a busy turn.
_EVENTS = 256


class _Poller:
    """The poller of one loop, while something is watched in it."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._epoll = select.epoll()
        try:
            loop.add_reader(self._epoll.fileno(), self._dispatch)
        except BaseException:
            self._epoll.close()
            raise

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        self._epoll.register(fd, select.EPOLLIN)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> bool:
        """Stop to watch; False if nothing is watched any more, and the poller is closed."""
        try:
            self._epoll.unregister(fd)
        except OSError:
            pass  # somebody else closed the descriptor, and epoll has forgotten it by itself
        del self._callbacks[fd]
        if self._callbacks:
            return True
        self.close()
        return False

    def close(self) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _dispatch(self) -> None:
        callbacks = self._callbacks
        for fd, _ in self._epoll.poll(0, _EVENTS):
            callback = callbacks.get(fd)  # one of those before may have closed it, or all
            if callback is not None:
                callback()


_pollers: dict[Loop, _Poller] = {}


def watch(loop: Loop, fd: int, callback: Callable[[], object]) -> None:
    """Call ``callback`` in every turn of ``loop`` in which ``fd`` is readable, or broken."""
    if not hasattr(select, "epoll"):
        loop.add_reader(fd, callback)
        return
    poller = _pollers.get(loop)
    if poller is None:
        poller = _pollers[loop] = _Poller(loop)
    try:
        poller.watch(fd, callback)
    except BaseException:
        if not poller._callbacks:
            del _pollers[loop]
            poller.close()
        raise


def unwatch(loop: Loop, fd: int) -> None:
    """Leave ``fd`` alone from now on. The loop may be closed already."""
    if not hasattr(select, "epoll"):
        if not loop.is_closed():
            loop.remove_reader(fd)
    elif not _pollers[loop].unwatch(fd):
        del _pollers[loop]
