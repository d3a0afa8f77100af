"""The async flavour: ``AsyncSocket``, ``dial`` and ``serve``, on asyncio's loop or uvloop's.

The methods, errors and promises are those of ``wireline.net``; methods that wait are coroutines. A socket belongs to
one event loop; only ``close`` may be called from any thread.
"""

import typing as _typing

from wireline._os.datagram import Datagram as Datagram
from wireline._os.datagram import ReceivedInto as ReceivedInto
from wireline._os.passed_fds import ReceivedFds as ReceivedFds
from wireline._public import load_when_used as _load_when_used
from wireline._public import publish as _publish
from wireline._server_common import StopReport as StopReport
from wireline.asyncnet._as_streams import as_streams as as_streams
from wireline.asyncnet._as_streams import as_transport as as_transport
from wireline.asyncnet._dial import dial as dial
from wireline.asyncnet._serve import Handler as Handler
from wireline.asyncnet._serve import Server as Server
from wireline.asyncnet._serve import StartingServer as StartingServer
from wireline.asyncnet._serve import StopEvent as StopEvent
from wireline.asyncnet._serve import serve as serve
from wireline.asyncnet._socket import Accepted as Accepted
from wireline.asyncnet._socket import AsyncSocket as AsyncSocket
from wireline.asyncnet._systemd import listeners_from_environment as listeners_from_environment

if _typing.TYPE_CHECKING:
    from wireline._pool import PoolStats as PoolStats
    from wireline._server_stats import ServerStats as ServerStats
    from wireline.asyncnet._pool import Pool as Pool

__all__ = [
    "Accepted",
    "AsyncSocket",
    "Datagram",
    "Handler",
    "Pool",
    "PoolStats",
    "ReceivedFds",
    "ReceivedInto",
    "Server",
    "ServerStats",
    "StartingServer",
    "StopEvent",
    "StopReport",
    "as_streams",
    "as_transport",
    "dial",
    "listeners_from_environment",
    "serve",
]

_LOADED_WHEN_USED = {
    "Pool": ("wireline.asyncnet._pool", __name__),
    "PoolStats": ("wireline._pool", "wireline.net"),
    "ServerStats": ("wireline._server_stats", "wireline.net"),
}

# One class each for both flavours; the path must not depend on which flavour is imported first.
_publish("wireline.net", globals(), ("Datagram", "ReceivedFds", "ReceivedInto", "StopReport"))
_publish(__name__, globals(), (name for name in __all__ if name not in _LOADED_WHEN_USED))

__getattr__ = _load_when_used(__name__, globals(), _LOADED_WHEN_USED)
