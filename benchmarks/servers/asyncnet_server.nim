## Nim's asyncnet: the server of its documentation, with TCP_NODELAY. See `__init__.py` for its arguments and output.

import std/[asyncdispatch, asyncnet, nativesockets, os, posix]

const
  ReadSize = 4096
  Greeting = block:
    var text = ""
    for _ in 1 .. 63: text.add 'w'
    text & "\n"

proc echoServe(client: AsyncSocket) {.async.} =
  while true:
    let data = await client.recv(ReadSize)
    if data.len == 0: break
    await client.send(data)

proc linesServe(client: AsyncSocket) {.async.} =
  while true:
    let line = await client.recvLine()
    if line.len == 0: break
    await client.send(line & "\n")

proc greetServe(client: AsyncSocket) {.async.} =
  await client.send(Greeting)

proc process(client: AsyncSocket, role: string) {.async.} =
  case role
  of "echo": await echoServe(client)
  of "lines": await linesServe(client)
  else: await greetServe(client)
  client.close()

proc seconds(time: Timeval): float = time.tv_sec.float + time.tv_usec.float / 1e6

proc obey(fd: AsyncFD): bool =
  var
    words: array[64, char]
    usage: Rusage
  if read(fd.cint, addr words, words.len) <= 0: quit(0)
  discard getrusage(RUSAGE_SELF, addr usage)
  echo "{\"user\": ", seconds(usage.ru_utime), ", \"system\": ", seconds(usage.ru_stime), "}"
  flushFile(stdout)

proc serve(role: string) {.async.} =
  # With a buffer `recv` waits for all that is asked for; only `recvLine` needs the buffer.
  var server = newAsyncSocket(buffered = role == "lines")
  server.bindAddr(Port(0), "127.0.0.1")
  server.listen()
  echo "{\"port\": ", server.getLocalAddr()[1].int, "}"
  flushFile(stdout)
  register(AsyncFD(0))
  addRead(AsyncFD(0), obey)
  while true:
    let client = await server.accept()
    client.setSockOpt(OptNoDelay, true, level = posix.IPPROTO_TCP)
    asyncCheck process(client, role)

waitFor serve(paramStr(1))
