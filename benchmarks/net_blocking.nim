## Nim's blocking sockets, written as the documentation of `net` says, with TCP_NODELAY.
##
##     net_blocking ROLE FILE MESSAGE_SIZE PIECE_SIZE PIECES WARM_UP
##
## The work of `blocking.py`: `echo` returns the received bytes, `lines` reads pieces of lines. FILE has the pieces,
## which are sent one after the other, over and over. The output is that of `_contestant.py`.

import std/[monotimes, net, os, posix, strutils, times]

type Stopwatch = object
  seconds, user, system: float
  began: MonoTime
  before: Rusage

proc seconds(time: Timeval): float = time.tv_sec.float + time.tv_usec.float / 1e6

proc start(watch: var Stopwatch) =
  discard getrusage(RUSAGE_SELF, addr watch.before)
  watch.began = getMonoTime()

proc stop(watch: var Stopwatch) =
  var now: Rusage
  watch.seconds += (getMonoTime() - watch.began).inNanoseconds.float / 1e9
  discard getrusage(RUSAGE_SELF, addr now)
  watch.user += seconds(now.ru_utime) - seconds(watch.before.ru_utime)
  watch.system += seconds(now.ru_stime) - seconds(watch.before.ru_stime)

let
  role = paramStr(1)
  pieces = readFile(paramStr(2))
  messageSize = paramStr(3).parseInt
  pieceSize = paramStr(4).parseInt
  measured = paramStr(5).parseInt
  warmUp = paramStr(6).parseInt

var
  watch: Stopwatch
  checked = 0

proc accept(): Socket =
  # With a buffer `recv` waits for all that is asked for; only `recvLine` needs the buffer.
  let server = newSocket(buffered = role == "lines")
  server.bindAddr(Port(0), "127.0.0.1")
  server.listen()
  echo "{\"port\": ", server.getLocalAddr()[1].int, "}"
  flushFile(stdout)
  server.accept(result)
  result.setSockOpt(OptNoDelay, true, level = posix.IPPROTO_TCP)
  server.close()

proc serveEcho(client: Socket) =
  var data: string
  for number in 0 ..< warmUp + measured:
    if number == warmUp: watch.start()
    discard client.recv(data, 4096)
    client.send(data)
  watch.stop()

proc readLines(client: Socket) =
  var lines = newSeq[string](pieceSize div messageSize)
  for number in 0 ..< warmUp + measured:
    if number >= warmUp: watch.start()
    for line in lines.mitems: line = client.recvLine()
    if number >= warmUp: watch.stop()
    var received = ""
    for line in lines: received.add(line & "\n")
    let place = number * pieceSize mod pieces.len
    if received != pieces[place ..< place + pieceSize]:
      quit("piece " & $number & " is wrong")
    inc checked

let client = accept()
if role == "lines": client.readLines() else: client.serveEcho()
client.close()
echo "{\"seconds\": ", watch.seconds, ", \"user\": ", watch.user, ", \"system\": ", watch.system,
  ", \"checked\": ", checked, "}"
