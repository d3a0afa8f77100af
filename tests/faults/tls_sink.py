"""A program: a TLS server of the standard library that reads every connection to its end and reports how that was.

It prints its port, then for each connection that has ended a line of JSON: the bytes that arrived and whether the end
was a clean one. Like every server it sends session tickets that its clients may never read: it is these that turn a
plain close into a reset. It ends when its standard input does.

With ``--slow`` it begins to read 0.3 seconds after the handshake, and says something once more before: data that
arrives at a closed descriptor is answered with a reset, too.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys


async def main(certificate: str, key: str, *options: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    slow = "--slow" in options

    async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received, ended = 0, "cleanly"
        try:
            writer.write(b"greetings that no client reads\n")
            if slow:
                await asyncio.sleep(0.3)
                writer.write(b"anybody there?\n")
            while data := await reader.read(65536):
                received += len(data)
        except OSError as error:
            ended = type(error).__name__
        print(json.dumps([received, ended]), flush=True)
        writer.close()

    server = await asyncio.start_server(sink, "127.0.0.1", 0, ssl=context, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)
    await over.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
