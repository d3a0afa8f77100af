"""The blocking flavour: ``Socket``, ``dial`` and ``serve``.

All of them may be used from several threads: one thread may read a socket while others write to it, and ``close`` from
any thread wakes the calls that wait.
"""

from wireline._os.datagram import Datagram as Datagram
from wireline._os.datagram import ReceivedInto as ReceivedInto
from wireline._public import publish as _publish
from wireline._server_common import StopReport as StopReport
from wireline.net._as_socket import as_socket as as_socket
from wireline.net._dial import dial as dial
from wireline.net._serve import Handler as Handler
from wireline.net._serve import Server as Server
from wireline.net._serve import serve as serve
from wireline.net._socket import Accepted as Accepted
from wireline.net._socket import Socket as Socket

__all__ = [
    "Accepted",
    "Datagram",
    "Handler",
    "ReceivedInto",
    "Server",
    "Socket",
    "StopReport",
    "as_socket",
    "dial",
    "serve",
]

_publish(__name__, globals(), __all__)
