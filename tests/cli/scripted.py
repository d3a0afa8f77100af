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
    request = read_exactly(sock, 8)
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
NNTP = answering(
    "200 news.test\r\n",
    {"CAPABILITIES": "101 of it\r\nSTARTTLS\r\n.\r\n", "STARTTLS": "382 go on\r\n"},
    "STARTTLS",
)
LMTP = answering(
    "220 mail.test LMTP\r\n",
    {"LHLO": "250-mail.test\r\n250 STARTTLS\r\n", "STARTTLS": "220 go on\r\n"},
    "STARTTLS",
)
SIEVE = answering(
    '"IMPLEMENTATION" {17+}\r\nSieve "of" test\r\n\r\n"SASL" ""\r\n"STARTTLS"\r\n"VERSION" "1.0"\r\nOK "ready"\r\n',
    {"STARTTLS": 'OK "go on"\r\n'},
    "STARTTLS",
)
IRC = answering(
    ":irc.test 020 * :Please wait while we process your connection\r\n",
    {"STARTTLS": ":irc.test 670 * :STARTTLS successful\r\n"},
    "STARTTLS",
)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectionError("the client has left")
        data += more
    return data


def _read_tag(sock: socket.socket) -> str:
    tag = ""
    while not tag.endswith(">"):
        tag += read_exactly(sock, 1).decode()
    return tag


STREAM = (
    "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "
    "id='a>b' from='localhost' version='1.0'>"
)
FEATURES = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"


def xmpp(sent: str, answer: str) -> Talk:
    """Make a server of XMPP that sends one text at the start and another one after the request for TLS."""

    def talk(sock: socket.socket) -> None:
        tag = _read_tag(sock)
        if tag.startswith("<?xml"):
            tag = _read_tag(sock)
        assert tag.strip().startswith("<stream:stream ")
        sock.sendall(sent.encode())
        assert (
            _read_tag(sock).replace('"', "'").startswith("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'")
        )
        sock.sendall(answer.encode())

    return talk


XMPP = xmpp(STREAM + FEATURES, "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")

START_TLS = b"1.3.6.1.4.1.1466.20037"


def ldap(answer: bytes) -> Talk:
    """Make a server of LDAP that answers the extended request StartTLS."""

    def talk(sock: socket.socket) -> None:
        head = read_exactly(sock, 2)
        assert head[0] == 0x30
        assert START_TLS in read_exactly(sock, head[1])
        sock.sendall(answer)

    return talk


LDAP = ldap(bytes.fromhex("30 0c 02 01 01 78 07 0a 01 00 04 00 04 00"))

TLS_CAPABILITY = 1 << 11


def mysql_greeting(capabilities: int) -> bytes:
    """The packet with which a server of MySQL begins."""
    low, high = capabilities.to_bytes(4, "little")[:2], capabilities.to_bytes(4, "little")[2:]
    body = b"\x0a8.0.30-test\0" + bytes(4) + b"12345678\0" + low + b"\x21\x02\0" + high + b"\x15" + bytes(10)
    body += b"123456789012\0mysql_native_password\0"
    return len(body).to_bytes(3, "little") + b"\0" + body


def mysql(greeting: bytes) -> Talk:
    """Make a server of MySQL that sends this first."""

    def talk(sock: socket.socket) -> None:
        sock.sendall(greeting)
        request = read_exactly(sock, 36)
        assert request[:4] == b"\x20\0\0\x01"
        assert int.from_bytes(request[4:8], "little") & TLS_CAPABILITY
        assert request[13:] == bytes(23)

    return talk


MYSQL = mysql(mysql_greeting(0x801FF7DF | TLS_CAPABILITY))

DIALOGUES: dict[str, Talk] = {
    "smtp": SMTP,
    "lmtp": LMTP,
    "imap": IMAP,
    "pop3": POP3,
    "sieve": SIEVE,
    "ftp": FTP,
    "nntp": NNTP,
    "irc": IRC,
    "xmpp": XMPP,
    "ldap": LDAP,
    "postgres": _postgres,
    "mysql": MYSQL,
}


@contextlib.contextmanager
def scripted(talk: Talk, leaf: certificates.Leaf | None = None, reply: bytes = b"") -> Iterator[int]:
    """Serve any number of clients, one after another; yields the port.

    Args:
        talk: the dialogue before TLS.
        leaf: the certificate.
        reply: sent over TLS before the end of the client's data is awaited.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*(leaf or certificates.server()))
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_serve, args=(server, talk, context, reply))
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)  # wakes `accept`
            thread.join(PATIENCE)


def _serve(server: socket.socket, talk: Talk, context: ssl.SSLContext, reply: bytes) -> None:
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
                    secured.sendall(reply)
                    read_all(secured)
                    secured.unwrap().close()
            except OSError:
                pass  # the client refused the certificate, or closed after the handshake
