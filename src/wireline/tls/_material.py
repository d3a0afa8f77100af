"""The certificates and keys of a context, read once: when it is made, and when it is reloaded."""

from __future__ import annotations

import functools
import os
import ssl
from dataclasses import dataclass, field

from . import _trust
from ._credentials import Credentials
from ._pem import Source, read_source
from ._tls_options import TICKET_KEYS_SIZE, Password, TlsOptions, VerifyMode

__all__ = ["Material"]


@dataclass(frozen=True, slots=True)
class Material:
    """What was read.

    Attributes:
        credentials: our own certificate and key; None without one.
        trust: the CAs; None if they are looked for when a client needs them.
        password: of the key; a callable is called once for all loads.
        ticket_secret: the secret of a server's session tickets, unless the options have one.
    """

    credentials: Credentials | None
    trust: _trust.Trust | None
    password: Password | None = field(repr=False)
    ticket_secret: bytes = field(repr=False)

    @classmethod
    def read(cls, options: TlsOptions, ticket_secret: bytes | None = None) -> Material:
        """Read the files.

        Args:
            options: which files.
            ticket_secret: of the material before a reload.

        Raises:
            OSError: a file is missing, or there is no CA.
            ssl.SSLError: a file or argument has no certificate or no key, or one that is damaged.
        """
        password = functools.cache(options.password) if callable(options.password) else options.password
        credentials = _credentials(options, password)
        trust = None
        if options.has_own_cas or (options.verify_mode is not VerifyMode.NONE and credentials is None):
            trust = _find_trust(options)
        return cls(credentials, trust, password, ticket_secret or os.urandom(TICKET_KEYS_SIZE))

    def trust_in(self, context: ssl.SSLContext, options: TlsOptions) -> None:
        """Make a context trust the CAs.

        Raises:
            OSError: there is none.
        """
        (self.trust or _find_trust(options)).load(context)


def _credentials(options: TlsOptions, password: Password | None) -> Credentials | None:
    cert = _source(options.cert_file, options.cert_data, "cert_data")
    if cert is None:
        return None
    same_file = options.key_file and options.key_file == options.cert_file
    key = None if same_file else _source(options.key_file, options.key_data, "key_data")
    return Credentials.of(cert, key, password)


def _source(path: str, data: bytes | None, name: str) -> Source | None:
    if data is not None:
        return Source(data, name)
    return read_source(path) if path else None


def _find_trust(options: TlsOptions) -> _trust.Trust:
    return _trust.find(options.verify_mode, options.ca_file, options.ca_dir, options.ca_data)
