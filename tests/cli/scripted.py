"""Small servers that start without TLS and continue with it, as the specifications of their protocols say."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

from tests.cli.command import PATIENCE, read_all
from tests.tls import certificates

Talk = Callable[[socket.socket], None]
"""Talks to one client; returns when TLS starts."""


class Lines:
    """The lines of a client, read byte by byte: the bytes after them belong to TLS."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def read(self) -> str:
        line = b""
        while not line.endswith(b"\r\n"):
            byte = self._sock.recv(1)
            if not byte:
                raise ConnectionError("the client has left")
            line += byte
        return line.decode().strip()


def answering(greeting: str, answers: dict[str, str], start: str = "") -> Talk:
    """Make a dialogue: each command gets its reply, until TLS starts.

    Args:
        greeting: sent first.
        answers: the reply to each command, by its first word; ``{tag}`` is replaced by the tag of IMAP.
        start: the full command after whose reply TLS begins; ``""`` if there is none.
    """

    tagged = any("{tag}" in answer for answer in answers.values())

    def talk(sock: socket.socket) -> None:
        lines = Lines(sock)
        sock.sendall(greeting.encode())
        while True:
            line = lines.read()
            tag, _, rest = line.partition(" ")
            command = rest if tagged else line
            known = answers.get(command) or answers.get(command.partition(" ")[0]) or "500 what?\r\n"
            sock.sendall(known.replace("{tag}", tag).encode())
            if command == start:
                return

    return talk


def _postgres(sock: socket.socket) -> None:
    request = b""
    while len(request) < 8:
        request += sock.recv(8 - len(request))
    assert request == (8).to_bytes(4) + (80877103).to_bytes(4)
    sock.sendall(b"S")


SMTP = answering(
    "220-mail.test is here\r\n220 ESMTP\r\n",
    {"EHLO": "250-mail.test\r\n250-SIZE 1000\r\n250-STARTTLS\r\n250 HELP\r\n", "STARTTLS": "220 go on\r\n"},
    "STARTTLS",
)
IMAP = answering(
    "* OK [CAPABILITY IMAP4rev2] ready\r\n",
    {
        "CAPABILITY": "* CAPABILITY IMAP4rev2 STARTTLS LOGINDISABLED\r\n{tag} OK done\r\n",
        "STARTTLS": "{tag} OK begin\r\n",
    },
    "STARTTLS",
)
POP3 = answering("+OK ready\r\n", {"CAPA": "+OK\r\nSTLS\r\n.\r\n", "STLS": "+OK begin\r\n"}, "STLS")
FTP = answering(
    "220-Welcome\r\n 220 lines of it\r\n220 ready\r\n",
    {"FEAT": "211-Features\r\n AUTH TLS\r\n211 End\r\n", "AUTH": "234 go on\r\n"},
    "AUTH TLS",
)
DIALOGUES: dict[str, Talk] = {"smtp": SMTP, "imap": IMAP, "pop3": POP3, "ftp": FTP, "postgres": _postgres}


@contextlib.contextmanager
def scripted(talk: Talk, leaf: certificates.Leaf | None = None) -> Iterator[int]:
    """Serve any number of clients, one after another; yields the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*(leaf or certificates.server()))
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_serve, args=(server, talk, context))
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)  # wakes `accept`
            thread.join(PATIENCE)


def _serve(server: socket.socket, talk: Talk, context: ssl.SSLContext) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        client.settimeout(PATIENCE)
        with client:
            try:
                talk(client)
                with context.wrap_socket(client, server_side=True) as secured:
                    read_all(secured)
            except OSError:
                pass  # the client refused the certificate, or closed after the handshake
