"""The core of every socket: bytes in, bytes out.

Nothing in this package waits, reads a clock or touches a descriptor: it never imports ``socket``, ``asyncio``,
``select``, ``threading`` or ``time``. The caller passes in the bytes and the time, so each decision is made in one
place for both flavours, and is tested without a network.
"""
