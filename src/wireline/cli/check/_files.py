"""The check of a certificate and its key before they are deployed: as a server that only this program can reach."""

from __future__ import annotations

import argparse
import contextlib
import errno
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

from wireline.cli._outcome import ExitCode, Failure, Stage, classify, during
from wireline.cli._printable import sanitize_for_terminal
from wireline.cli.check._endpoints import Attempt
from wireline.cli.check._report import Findings, Report
from wireline.cli.check._tls_probe import TlsProbe
from wireline.net import Socket
from wireline.tls import Handshake, SslContext


class FilesEndpoint:
    """A TLS server on socket pairs."""

    def __init__(self, path: str, context: SslContext) -> None:
        """Prepare.

        Args:
            path: of the certificate, for the report.
            context: of the server.
        """
        self._path = path
        self._context = context
        self._threads: list[threading.Thread] = []

    def __str__(self) -> str:
        return sanitize_for_terminal(self._path)

    def connect(self, timeout: float) -> Socket:
        """Connect to it.

        Raises:
            OSError: no descriptor or no thread is left.
        """
        ours, theirs = map(Socket.from_socket, socket.socketpair())
        thread = threading.Thread(target=self._serve, args=(theirs, timeout), name="wireline-check")
        try:
            thread.start()
        except RuntimeError as error:
            ours.close()
            theirs.close()
            raise OSError(errno.EAGAIN, str(error)) from error
        self._threads.append(thread)
        return ours

    def _serve(self, sock: Socket, timeout: float) -> None:
        # The client reports the errors: it is the side that checks.
        with sock, contextlib.suppress(OSError):
            self._context.wrap_connected_socket(sock, Handshake.AS_SERVER, "", timeout)
            while sock.recv_some(timeout=timeout):
                continue

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Wait at the end of the block for all connections to end."""
        try:
            yield
        finally:
            for thread in self._threads:
                thread.join()


def check_files(options: argparse.Namespace) -> Report:
    """Check the files of ``--cert`` and ``--key``.

    Raises:
        Failure: the CAs cannot be used; nothing was checked.
    """
    report = Report(options.cert, datetime.now(UTC), options.days, of_files=True)
    try:
        password = options.settings.get("password")
        context = SslContext(cert_file=options.cert, key_file=options.key or "", password=password)
    except OSError as error:
        code = ExitCode.HANDSHAKE if isinstance(error, ssl.SSLError) else ExitCode.FAILED
        sentence = classify(Failure(Stage.SETUP, error)).sentence
        report.add_problem(code, sentence.removeprefix("cannot use TLS: "))  # no connection was meant
        report.cause = error
        return report
    endpoint = FilesEndpoint(options.cert, context)
    # The client has no certificate.
    client = argparse.Namespace(**{**vars(options), "cert": None, "key": None, "starttls": None})
    findings = Findings(report.target, report.now, report.days)
    with during(Stage.SETUP, options.cert):
        sock = endpoint.connect(options.timeout)
    with endpoint.joined(), sock:
        report.attempts = [Attempt(endpoint, 0.0, None, None)]
        report.tls[str(endpoint)] = TlsProbe(client, findings, sock, endpoint).run()
    report.merge({str(endpoint): findings})
    return report
