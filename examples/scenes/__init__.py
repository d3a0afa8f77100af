"""The scenes of the demonstration.

A new scene is a file in this directory, with a function that takes a ``Stage``, and a line in ``STORY``. It prints its
steps with ``stage.show``, checks every claim with ``stage.check``, and leaves nothing behind.
"""

from __future__ import annotations

from examples.scenes import (
    crowd,
    datagrams,
    flavours,
    keys,
    lines,
    mutual,
    names,
    patience,
    secure,
    throwaway,
    transfer,
    unix,
    upgrade,
    web,
)
from examples.scenes.stage import Scene

STORY = (
    Scene("An echo server, and a client that talks in lines", lines.play),
    Scene("A large file from one process to another", transfer.play),
    Scene("A Unix socket", unix.play),
    Scene("Datagrams", datagrams.play),
    Scene("A web page, over a plain socket", web.play),
    Scene("A name with a dead and a live address", names.play),
    Scene("A timeout that loses nothing", patience.play),
    Scene("Both flavours, talking to each other", flavours.play),
    Scene("TLS with a throw-away certificate", throwaway.play),
    Scene("TLS with certificates of a CA", secure.play_echo),
    Scene("A web page by https", secure.play_web),
    Scene("STARTTLS: TLS on an open connection", upgrade.play),
    Scene("TLS with a key and no certificate", keys.play),
    Scene("TLS with certificates on both sides", mutual.play),
    Scene("A thousand clients chat", crowd.play),
)
