"""What every call that waits promises: the docstrings of both flavours, written once.

The flavours have the same methods with the same promises, so they have the same words. What is below is text and
nothing else: no base class, and no signatures, for those are a flavour's own. ``documented`` copies the text to the
method or function of the same name. A test compares names, arguments and text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["ServerPromises", "SocketPromises", "dial", "documented", "serve"]

T = TypeVar("T")


def documented(promises: object) -> Callable[[T], T]:
    """Give a class, its methods, or a function the docstrings of ``promises``, where it has none of its own."""

    def copy_to(subject: T) -> T:
        if subject.__doc__ is None:
            subject.__doc__ = promises.__doc__
        members = vars(subject)
        for name, promise in vars(promises).items():
            if not name.startswith("_") and name in members and members[name].__doc__ is None:
                members[name].__doc__ = promise.__doc__
        return subject

    return copy_to


class SocketPromises:
    """The waiting methods of a socket, and those that are the same without the wait."""

    # Reading.

    def recv(self) -> None:
        """Receive ``size`` bytes; ``b""`` means that the peer is done.

        A buffered stream gives all ``size`` bytes, and fewer only at its end. An unbuffered one gives what one
        system call does. A datagram socket gives the next datagram, cut to ``size``. A timeout or a cancellation
        loses nothing: what has arrived stays for the next read, whichever that is.

        Args:
            size: bytes; 0 is answered at once on a stream.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.
            flags: ``PEEK`` leaves the bytes for the next read. ``SAFE_DISCONN`` takes a reset for the end.

        Returns:
            The bytes.

        Raises:
            SocketTimeout: time ran out first.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``. As any
                failure of the connection, it is reported after everything that arrived before it.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: an argument is of the wrong type, or negative.
        """

    def recv_into(self) -> None:
        """Receive into the caller's buffer as ``recv`` does; 0 means that the peer is done.

        A timeout or a cancellation loses nothing and leaves the buffer as it was.

        Args:
            buffer: something writable and contiguous.
            size: bytes; None fills the buffer.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.
            flags: ``PEEK`` leaves the bytes for the next read. ``SAFE_DISCONN`` takes a reset for the end.

        Returns:
            How many bytes of the buffer were written.

        Raises:
            SocketTimeout: time ran out first.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError: the buffer cannot be written to.
            ValueError: ``size`` is negative or more than the buffer has, or ``timeout`` is negative.
        """

    def recv_some(self) -> None:
        """Receive what there is, as soon as there is one byte; ``b""`` means that the peer is done.

        A datagram socket gives the next datagram, cut to ``max_size``. A timeout or a cancellation loses nothing:
        what has arrived stays for the next read.

        Args:
            max_size: the most bytes to return. More than ``BUFFER_SIZE``, up to 1 MiB, also asks the kernel for as
                much at once, which bulk data gain from.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.
            flags: ``PEEK`` leaves the bytes for the next read. ``SAFE_DISCONN`` takes a reset for the end.

        Returns:
            At least one byte, from the buffer first; ``b""`` at the end.

        Raises:
            SocketTimeout: time ran out before a byte came.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: an argument is of the wrong type, or negative.
        """

    def recv_exactly(self) -> None:
        """Receive ``size`` bytes, not one fewer.

        A timeout or a cancellation loses nothing: what has arrived stays for the next read.

        Args:
            size: bytes.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            The bytes.

        Raises:
            EndOfStreamError: the peer was done, or gone, before. The bytes that came are its ``partial``, and stay
                readable with ``recv`` or ``recv_some``.
            SocketTimeout: time ran out first.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an argument is of the wrong type, or negative.
        """

    def recv_until(self) -> None:
        """Receive everything up to a delimiter, and the delimiter.

        A timeout or a cancellation loses nothing: what has arrived stays for the next read.

        Args:
            delimiter: one byte at least.
            max_length: the most bytes to return, the delimiter included.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            The bytes; they end with ``delimiter``.

        Raises:
            LineTooLongError: ``max_length`` bytes came and the delimiter was not among them. They stay readable.
            EndOfStreamError: the peer was done, or gone, before the delimiter. The bytes that came are its
                ``partial``, and stay readable with ``recv`` or ``recv_some``.
            SocketTimeout: time ran out first.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an empty delimiter; an argument is of the wrong type, or
                negative.
        """

    def recv_line(self) -> None:
        r"""Receive a line without its end; ``b""`` means that the peer is done.

        A line ends at ``\r\n`` or ``\n``; a lone ``\r`` is data. An empty line is ``b"\r\n"``, whichever way it
        ended. A line that the peer left unfinished is not returned; its bytes stay readable with ``recv`` or
        ``recv_some``. A timeout or a cancellation loses nothing: what has arrived of a line stays for the next read.

        Args:
            timeout: seconds for the whole call; None waits for ever, 0 never waits.
            flags: ``PEEK`` leaves the line for the next read. ``SAFE_DISCONN`` takes a reset for the end.
            max_length: bytes that a line may have, without its end; at least 1.
            on_long: what to do with a longer line. ``"truncate"`` returns its first ``max_length`` bytes, and the
                next read goes on with the rest; ``"raise"`` raises and consumes nothing.

        Returns:
            The line.

        Raises:
            LineTooLongError: the line is longer, and ``on_long`` is ``"raise"``.
            SocketTimeout: time ran out before the line was complete.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an argument is of the wrong type, or out of its range.
        """

    def recv_line_into(self) -> None:
        r"""Receive a line as ``recv_line`` does, and make it the content of ``buffer``.

        A timeout or a cancellation loses nothing and leaves the buffer as it was.

        Args:
            buffer: what was in it is replaced; it becomes as long as the line.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.
            flags: ``PEEK`` leaves the line for the next read. ``SAFE_DISCONN`` takes a reset for the end.
            max_length: bytes that a line may have, without its end; at least 1.
            on_long: ``"truncate"`` or ``"raise"``, see ``recv_line``.

        Returns:
            How many bytes the line has: 2 for an empty one, which is ``b"\r\n"``, and 0 when the peer is done.

        Raises:
            LineTooLongError: the line is longer, and ``on_long`` is ``"raise"``.
            SocketTimeout: time ran out before the line was complete.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: ``buffer`` is no bytearray, this is a datagram socket, or another argument is of
                the wrong type or out of its range.
        """

    def try_recv_line(self) -> None:
        r"""Return a line if a whole one has arrived, and say what there is if not. It never waits.

        Args:
            max_length: bytes that a line may have, without its end; at least 1. A longer one is truncated.

        Returns:
            ``FULL_LINE`` and the line, an empty one as ``b"\r\n"``; ``PARTIAL_LINE`` and a copy of what there is
            of it; ``DISCONNECTED``, with a copy of what the peer left unfinished; or ``NONE`` and ``b""``.

        Raises:
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; ``max_length`` is no int, or less than 1.
        """

    def lines(self) -> None:
        """Iterate over the lines that the peer sends, without their ends; an empty one is ``b""``.

        It ends when the peer is done; the bytes of a line that was left unfinished stay readable with ``recv``. A
        timeout or a cancellation ends this iterator and loses nothing: what has arrived stays for the next read,
        another ``lines()`` for example.

        Args:
            max_length: bytes that a line may have, without its end; at least 1.
            timeout: seconds for each line; None waits for ever, 0 never waits.

        Returns:
            The iterator.

        Raises:
            LineTooLongError: a line is longer. Its bytes stay readable.
            SocketTimeout: time ran out before a line was complete.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an argument is of the wrong type, or out of its range.
        """

    def skip(self) -> None:
        """Receive ``size`` bytes and drop them.

        A timeout or a cancellation loses nothing: no byte is dropped, and none leaves the memory, before all of
        them are there.

        Args:
            size: bytes.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Raises:
            EndOfStreamError: the peer was done, or gone, before. The bytes that came are its ``partial``, and stay
                readable with ``recv`` or ``recv_some``.
            SocketTimeout: time ran out first.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an argument is of the wrong type, or negative.
        """

    # Writing.

    def send(self) -> None:
        """Send all of ``data``.

        Whoever sends at the same time takes turns: every ``send`` goes out whole. The buffer is the caller's again
        when the call returns. A timeout or a cancellation leaves the rest unsent; ``last_bytes_sent`` says how many
        bytes went out. On a datagram socket ``data`` is one datagram.

        Args:
            data: ``bytes`` or another buffer, ``str`` is none. An empty one sends nothing on a stream.
            flags: with ``SAFE_DISCONN`` a peer that is gone is no error: the data cannot be delivered.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Raises:
            SocketTimeout: time ran out; on a stream ``bytes_sent`` says how many bytes went out before.
            BrokenPipeError, ConnectionResetError: the peer is gone, and ``flags`` lack ``SAFE_DISCONN``; or this
                side has called ``shutdown_write``.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: an argument is of the wrong type, or negative.
        """

    def send_many(self) -> None:
        """Send many pieces, in order, as if they were one.

        For many small messages at once, as a server has that answers a client which did not wait for each answer: it
        costs one system call and, on TLS, one record where a ``send`` for each costs one of both for every message.
        The pieces are put together in memory first, so a large one is better off with a ``send`` of its own. A timeout
        or a cancellation leaves the rest unsent, as of ``send``.

        Args:
            parts: an iterable of ``bytes`` or other buffers.
            flags: as for ``send``.
            timeout: as for ``send``.

        Raises:
            TypeError: ``parts`` is no iterable of buffers (one buffer is none), or this is a datagram socket.
            SocketTimeout: time ran out; ``bytes_sent`` counts the bytes of all pieces together.
            BrokenPipeError, ConnectionResetError, ClosedError, OSError, ValueError: as for ``send``.
        """

    def send_some(self) -> None:
        """Send what there is room for with one low-level send.

        A timeout or a cancellation has sent nothing.

        Args:
            data: ``bytes`` or another buffer, ``str`` is none.
            timeout: seconds to wait for room; None waits for ever, 0 never waits.

        Returns:
            How many bytes went out: at least one, unless ``data`` is empty.

        Raises:
            SocketTimeout: time ran out before there was room.
            BrokenPipeError, ConnectionResetError: the peer is gone, or this side has called ``shutdown_write``.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: an argument is of the wrong type, or negative.
        """

    def try_send(self) -> None:
        """Send ``data`` as far as there is room, and say whether all of it went out. It never waits.

        It is a plain call in both flavours. ``last_bytes_sent`` says how many bytes went out.

        Args:
            data: ``bytes`` or another buffer, ``str`` is none.

        Returns:
            True only if all of it went out: False if there was room for a part or nothing, if another task or thread
            is sending, and after any error of the socket.

        Raises:
            TypeError: ``data`` is no buffer.
        """

    def shutdown_write(self) -> None:
        """Send the end of the stream, and go on reading: half-close.

        It waits for those who are sending. A timeout or a cancellation leaves the stream as it is, open for
        writing. A peer that is gone needs no telling.

        Args:
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Raises:
            SocketTimeout: time ran out first.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket was never connected.
            TypeError, ValueError: a datagram socket; ``timeout`` is no number, or negative.
        """

    # Datagrams.

    def send_to(self) -> None:
        """Send one datagram.

        A timeout or a cancellation has sent nothing.

        Args:
            address: a name, of which the first address is used, or an address; on a Unix socket the path.
            port: 0 to 65535; not used on a Unix socket.
            data: ``bytes`` or another buffer, ``str`` is none. An empty one is a datagram too.
            flags: none makes a difference here.
            timeout: seconds for the whole call, finding the name included; None waits for ever, 0 never waits.

        Returns:
            How many bytes were sent: all of them.

        Raises:
            SocketTimeout: time ran out first.
            socket.gaierror: the name does not resolve.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: too large (``EMSGSIZE``), no route, or an earlier datagram was refused
                (``ConnectionRefusedError``); the socket keeps working.
            TypeError, ValueError: a stream socket; an argument is of the wrong type, or out of its range.
        """

    def recv_from(self) -> None:
        """Receive one datagram and its sender.

        An empty datagram is a datagram, not an end. A timeout or a cancellation takes no datagram away.

        Args:
            size: bytes to keep of it at most; the rest of a larger one is gone, and ``truncated`` says so.
            flags: ``PEEK`` leaves the datagram for the next call.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            A ``Datagram``: ``(data, address)``, and ``truncated``.

        Raises:
            SocketTimeout: time ran out before a datagram came.
            BusyError: another thread or task is receiving.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: an earlier datagram was refused (``ConnectionRefusedError``), or the like; the socket keeps
                working.
            TypeError, ValueError: a stream socket; an argument is of the wrong type, or negative.
        """

    def recv_from_into(self) -> None:
        """Receive one datagram into the caller's buffer, as ``recv_from`` does.

        A timeout or a cancellation takes no datagram away and leaves the buffer as it was.

        Args:
            buffer: something writable and contiguous.
            size: bytes to keep of the datagram at most; None means the whole buffer.
            flags: ``PEEK`` leaves the datagram for the next call.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            A ``Received``: ``(size, address)``, and ``truncated``.

        Raises:
            SocketTimeout: time ran out before a datagram came.
            BusyError: another thread or task is receiving.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: an earlier datagram was refused (``ConnectionRefusedError``), or the like; the socket keeps
                working.
            TypeError: a stream socket, or the buffer cannot be written to.
            ValueError: ``size`` is negative or more than the buffer has, or ``timeout`` is negative.
        """

    # Connecting.

    def connect(self) -> None:
        """Connect to a host, to each of its addresses in turn until one answers.

        The addresses are those of the socket's own family; see ``dial`` for both, raced. A datagram socket sends
        nothing: it only learns whom ``send`` and ``recv`` are for. After an error, a timeout or a cancellation the
        socket is unconnected, keeps its options, and may be connected again.

        Args:
            address: a name or an address.
            port: 0 to 65535.
            timeout: seconds for the whole call, finding the name included; None waits for ever.

        Raises:
            SocketTimeout: time ran out first.
            socket.gaierror: the name does not resolve.
            BusyError: another thread or task is connecting this socket.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the last address's error (``ConnectionRefusedError``, ...), or the socket is connected or
                listening already.
            TypeError, ValueError: a Unix socket (see ``connect_unix``); an argument is of the wrong type, or out of
                its range.
        """

    def connect_unix(self) -> None:
        """Connect to a Unix socket.

        After an error, a timeout or a cancellation the socket is unconnected and may be connected again.

        Args:
            path: a path, or on Linux an abstract name (a leading NUL).
            timeout: seconds for the whole call; None waits for ever.

        Raises:
            SocketTimeout: time ran out before the listener had room for one more.
            BusyError: another thread or task is connecting this socket.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: nobody listens there (``ConnectionRefusedError``), nothing is there (``FileNotFoundError``), or
                the socket is connected or listening already.
            TypeError, ValueError: an IP socket (see ``connect``); no path, an empty one or one that is too long.
        """

    # Accepting.

    def accept_addr(self) -> None:
        """Accept a connection; return its socket and who it is.

        The new socket is buffered if this one is. A timeout or a cancellation accepts nobody: who has connected is
        there for the next call.

        Args:
            flags: with ``SAFE_DISCONN`` a client that went away before it was accepted is skipped.
            inheritable: whether a program that this process executes gets the new descriptor too.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            An ``Accepted``: ``(client, address)``. The address of a Unix client is its path, ``""`` as a rule, and
            port 0.

        Raises:
            SocketTimeout: time ran out before anybody connected.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: no descriptor is left (``EMFILE``, ``ENFILE``), or the socket is not listening.
            TypeError, ValueError: a datagram socket; ``timeout`` is no number, or negative.
        """

    def accept(self) -> None:
        """Accept a connection and return its socket.

        The new socket is buffered if this one is. A timeout or a cancellation accepts nobody: who has connected is
        there for the next call.

        Args:
            flags: with ``SAFE_DISCONN`` a client that went away before it was accepted is skipped.
            inheritable: whether a program that this process executes gets the new descriptor too.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            The client's socket.

        Raises:
            SocketTimeout: time ran out before anybody connected.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: no descriptor is left (``EMFILE``, ``ENFILE``), or the socket is not listening.
            TypeError, ValueError: a datagram socket; ``timeout`` is no number, or negative.
        """

    def try_accept_addr(self) -> None:
        """Accept a connection if somebody has connected. It never waits.

        Returns:
            ``SUCCESS``, the client's socket and its address; or ``NO_CLIENT``, None and None. Of a TLS listener
            also ``NO_HANDSHAKE``, None and None: a client has come, and is handed out by a later call, when the
            handshake is done; or another thread is in this call. A client that takes more than 10 s is
            closed. 256 clients are kept at most, and a call looks only at those that have sent something. Further
            ones wait to be accepted, and take the place of a client that has been in its handshake for a second.

        Raises:
            ClosedError: this side closed the socket.
            OSError: no descriptor is left (``EMFILE``, ``ENFILE``), or the socket is not listening.
            TypeError: a datagram socket.
        """


class ServerPromises:
    """The public methods of a server."""

    def local_addr(self) -> None:
        """Where the server listens; it stays known after ``stop``. A Unix socket has its path and port 0."""

    def connections(self) -> None:
        """How many connections are being served now."""

    def wait(self) -> None:
        """Wait until the server has been stopped.

        A timeout or a cancellation leaves the server as it is.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            SocketTimeout: it was not stopped in time.
            RuntimeError: a forked child waits for its parent's server, and has not let go of its copy with ``stop``.
            TypeError, ValueError: ``timeout`` is no number, or negative.
        """

    def stop(self) -> None:
        """Accept nobody any more, let the handlers finish, and close what is left.

        A handler whose connection is closed under it gets a ``ClosedError`` from the socket. A second call while one
        is under way ends the drain of both, whatever its own is: the connections are closed at once. In a signal
        handler that has interrupted the first call it leaves the rest to that, and returns ``StopReport(0, 0)`` at
        once. Stopping what is stopped is fine. A handler may stop its own server and is not waited for; it does not
        end the drain of another stop, and if there is one, its own returns ``StopReport(0, 0)`` at once. A cancellation
        or an exception during the wait leaves the listener closed and the handlers running, and another ``stop`` goes
        on.

        A server belongs to the process that made it. In a forked child this call waits for nothing and does nothing
        to the parent's server: it closes the child's copies of the descriptors, those of connections that the child
        has not gone on with included, and returns ``StopReport(0, 0)``.

        Args:
            drain: seconds that the handlers have to finish by themselves; None waits for as long as they take.

        Returns:
            A ``StopReport``: how many handlers finished in time, and how many connections were closed.

        Raises:
            TypeError, ValueError: ``drain`` is no number, or negative.
        """

    def request_stop(self) -> None:
        """Ask the server to stop, and do not wait for it; see ``wait``.

        It is a plain call in both flavours, and may be made in a signal handler at any moment, and in any thread. What
        it asks for is done in the background, as ``stop(drain)`` would do it. A second request ends the drain of the
        first, whatever its own is: so a signal handler that does nothing but this call stops a server gracefully at
        the first signal and at once at the second. In a forked child it does what ``stop`` does there.

        Args:
            drain: seconds that the handlers have to finish by themselves; None waits for as long as they take.

        Raises:
            TypeError, ValueError: ``drain`` is no number, or negative.
        """


def dial() -> None:
    """Connect to a name: race its addresses and return a socket connected to the first that answers.

    All addresses are tried, IPv6 and IPv4 in turn: the next one when 250 ms have passed or the last one has failed
    (RFC 8305). The name is resolved once. A timeout or a cancellation leaves nothing behind: every attempt under way
    is closed.

    Args:
        address: a name or an address.
        port: 0 to 65535.
        protocol: ``IPPROTO_TCP``, or ``IPPROTO_UDP`` for a connected datagram socket.
        buffered: read from the kernel in large pieces, see ``Socket``.
        timeout: seconds for the whole call, finding the name and the TLS handshake included; None waits for ever.
        tls: a ``wireline.tls.SslContext``: make a TLS handshake, and check that the peer is who was asked for.
        hostname: the name that the peer's certificate must be for, and that is sent to it; ``address`` by default.

    Returns:
        The connected socket.

    Raises:
        DialError: no address could be connected; its ``attempts`` have each one's own error and time.
        SocketTimeout: time ran out while an address could still have answered, or in the handshake.
        ssl.SSLError: the handshake failed; of a certificate that is not accepted ``ssl.SSLCertVerificationError``.
        socket.gaierror: the name does not resolve.
        TypeError, ValueError: an argument is of the wrong type, or out of its range.
    """


def serve() -> None:
    """Listen, and call ``handler(client, address)`` for every connection, each on its own.

    It binds and listens before it returns, and then accepts in the background. A client's socket is closed when its
    handler returns or raises; an exception ends its connection and no other. When the process is out of descriptors,
    its connections stay, and others are accepted again as soon as that is possible. An error or a
    cancellation before it returns leaves nothing behind.

    An exception is logged (logger ``wireline``). One that the client's socket raised for a reason that lies with the
    peer (a timeout, a reset, an end without ``close_notify``, a failed handshake) is one line at INFO, and its record
    has the attributes ``peer``, ``local`` and ``error`` (``str``), ``seconds`` since the client was accepted, and
    ``bytes_in`` and ``bytes_out`` as the network counts them (None where the system does not say). Any other exception
    is the program's own and logged at ERROR with its traceback; one of another socket, too. After ten lines of one kind
    in one second the others are counted in one line.

    Args:
        handler: what serves one connection.
        port: 0 lets the operating system choose; see the server's ``local_addr``.
        address: a name or an address; ``""`` is every interface, IPv6 and IPv4; ``"unix:/path"`` is a Unix socket,
            and on Linux ``"unix:@name"`` one with an abstract name.
        tls: a ``wireline.tls.SslContext``: every client has to make a TLS handshake before the handler is called.
        max_connections: how many may be served at a time; who comes then waits to be accepted. None is no limit.
        handshake_timeout: seconds that a client has for its handshake, which delays no other client.
        backlog: how many may wait to be accepted; the operating system has a limit of its own.
        reuse_port: let several processes listen on one port (``SO_REUSEPORT``).
        buffered: what the clients' sockets are, see ``Socket``.
        on_error: called as ``on_error(error, client)``, instead of the log line, with each exception that ends a
            connection, the peer's doing or the program's; the client is closed afterwards. In the async flavour it may
            be a coroutine function, which is awaited. An exception in it is logged, and nothing else comes of it.

    Returns:
        The running server.

    Raises:
        socket.gaierror: the name does not resolve.
        OSError: the address is in use, not ours, not permitted, ...
        TypeError, ValueError: an argument is of the wrong type, or out of its range.
    """
