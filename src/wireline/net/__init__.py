"""The blocking flavour: ``Socket``, ``dial`` and ``serve``.

All of them may be used from several threads: one thread may read a socket while others write to it, and ``close`` from
any thread wakes the calls that wait.
"""

import typing as _typing

from wireline._os.datagram import Datagram as Datagram
from wireline._os.datagram import ReceivedInto as ReceivedInto
from wireline._os.passed_fds import ReceivedFds as ReceivedFds
from wireline._public import load_when_used as _load_when_used
from wireline._public import publish as _publish
from wireline.net._dial import dial as dial
from wireline.net._socket import Accepted as Accepted
from wireline.net._socket import Socket as Socket

if _typing.TYPE_CHECKING:
    from wireline._pool import PoolStats as PoolStats
    from wireline._server_common import StopReport as StopReport
    from wireline._server_stats import ServerStats as ServerStats
    from wireline.net._as_socket import as_socket as as_socket
    from wireline.net._pool import Pool as Pool
    from wireline.net._relay import relay as relay
    from wireline.net._serve import Handler as Handler
    from wireline.net._serve import Server as Server
    from wireline.net._serve import StopEvent as StopEvent
    from wireline.net._serve import serve as serve
    from wireline.net._systemd import listeners_from_environment as listeners_from_environment

__all__ = [
    "Accepted",
    "Datagram",
    "Handler",
    "Pool",
    "PoolStats",
    "ReceivedFds",
    "ReceivedInto",
    "Server",
    "ServerStats",
    "Socket",
    "StopEvent",
    "StopReport",
    "as_socket",
    "dial",
    "listeners_from_environment",
    "relay",
    "serve",
]

# What only some programs use: a pool, a server with its log, a bridge to other libraries.
_LOADED_WHEN_USED = {
    "Handler": ("wireline.net._serve", __name__),
    "Pool": ("wireline.net._pool", __name__),
    "PoolStats": ("wireline._pool", "wireline.net"),
    "relay": ("wireline.net._relay", __name__),
    "Server": ("wireline.net._serve", __name__),
    "ServerStats": ("wireline._server_stats", "wireline.net"),
    "StopEvent": ("wireline.net._serve", __name__),
    "StopReport": ("wireline._server_common", "wireline.net"),
    "listeners_from_environment": ("wireline.net._systemd", __name__),
    "as_socket": ("wireline.net._as_socket", __name__),
    "serve": ("wireline.net._serve", __name__),
}

_publish(__name__, globals(), (name for name in __all__ if name not in _LOADED_WHEN_USED))

__getattr__: _typing.Callable[[str], object] = _load_when_used(__name__, globals(), _LOADED_WHEN_USED)
