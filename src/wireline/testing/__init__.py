"""Tools for the tests of your own programs: connected pairs, a bad network, certificates, and our promises as checks.

The library itself never imports it. ``wireline.testing.pytest_plugin`` has fixtures.
"""

from typing import TYPE_CHECKING

from wireline._public import publish as _publish
from wireline.testing._checks import CHECKS as CHECKS
from wireline.testing._checks import Check as Check
from wireline.testing._fault_proxy import fault_proxy as fault_proxy
from wireline.testing._faults import Faults as Faults
from wireline.testing._pairs import AsyncPair as AsyncPair
from wireline.testing._pairs import Pair as Pair
from wireline.testing._pairs import async_pair as async_pair
from wireline.testing._pairs import pair as pair
from wireline.testing._stream_relay import StreamRelay as StreamRelay

if TYPE_CHECKING:
    from wireline.testing._certificates import CertificateFiles as CertificateFiles
    from wireline.testing._certificates import TestCA as TestCA

__all__ = [
    "CHECKS",
    "AsyncPair",
    "CertificateFiles",
    "Check",
    "Faults",
    "Pair",
    "StreamRelay",
    "TestCA",
    "async_pair",
    "fault_proxy",
    "pair",
]


_LAZY = ("CertificateFiles", "TestCA")
_publish(__name__, globals(), (name for name in __all__ if name not in _LAZY))


def __getattr__(name: str) -> object:
    # Certificates need `ssl`, which the rest does not load.
    if name in _LAZY:
        from wireline.testing import _certificates

        _publish(__name__, vars(_certificates), _LAZY)
        return getattr(_certificates, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
