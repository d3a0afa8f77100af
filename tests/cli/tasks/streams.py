"""Connect and listen: TCP, UDP, Unix sockets."""

from __future__ import annotations

import json
import os
import re

from tests.cli.command import unresponsive_listener
from tests.cli.tasks.bench import Bench, Running, wait_until
from tests.cli.tasks.scenarios import task

ECHO = "socat TCP-LISTEN:9000,reuseaddr,fork EXEC:cat"


@task("Connect, type and read")
def connect(bench: Bench, lines: list[str]) -> None:
    bench.start(ECHO, listens=9000)
    client = bench.start(lines[0])
    client.type("hello\n")
    client.says("^hello\n$")
    client.type("again\n")
    client.says("^hello\nagain\n$")


@task("Accept one connection")
def listen(bench: Bench, lines: list[str]) -> None:
    server = bench.start(lines[0], listens=9000)
    client = bench.start("nc -N example.com 9000")
    server.type("welcome\n")
    client.says("welcome")
    client.type("hello\n")
    client.end_input()
    server.says("^hello\n$")
    server.end_input()
    assert server.code() == client.code() == 0
    if bench.ours:
        assert server.err == bench.here("listening on [::]:9000\n")


@task("Keep accepting")
def keep(bench: Bench, lines: list[str]) -> None:
    bench.start(lines[0], listens=9000)
    for number in range(3):
        bench.run("nc -N example.com 9000", f"{number}\n")
    log = bench.where / "log.txt"
    wait_until(lambda: sorted(log.read_text().split()) == ["0", "1", "2"], lambda: repr(log.read_text()))


@task("Send a file")
def send_a_file(bench: Bench, lines: list[str]) -> None:
    data = os.urandom(300_000)
    (bench.where / "file.bin").write_bytes(data)
    copy = bench.where / "copy.bin"
    peers = ["nc -l 9000 > copy.bin", "nc -N example.com 9000 < file.bin"]
    for receive, send in ([lines[0], peers[1]], [peers[0], lines[1]], lines):
        receiver = bench.start(receive, listens=9000)
        sent = bench.run(send)
        assert (sent.code, receiver.code()) == (0, 0)
        assert copy.read_bytes() == data
        copy.unlink()


@task("Make a request by hand")
def request(bench: Bench, lines: list[str]) -> None:
    bench.start_nginx("listen 80; location / { return 200 'the page'; }", 80)
    done = bench.run(lines[0])
    answer = done.out.replace("\r\n", "\n")  # `crnl` of socat has done so already
    assert answer.startswith("HTTP/1.1 200 OK\n")
    assert answer.endswith("\n\nthe page")
    assert done.code == 0


@task("Leave some seconds after the end of input")
def quit_after(bench: Bench, lines: list[str]) -> None:
    (bench.where / "request.txt").write_text("hello\n")
    bench.start("socat TCP-LISTEN:9000,reuseaddr,fork SYSTEM:'head -n 1; sleep 30'", listens=9000)
    done = bench.run(lines[0])
    assert (done.code, done.out) == (0, "hello\n")


@task("Limit the wait")
def timeout(bench: Bench, lines: list[str]) -> None:
    with unresponsive_listener() as (port, _):
        bench.use_port(9000, port)
        client = bench.start(lines[0])
        code = client.code()
    assert code == 4 if bench.ours else code == 1


@task("Connect from an address and a port")
def source(bench: Bench, lines: list[str]) -> None:
    server = bench.start("socat -d -d TCP-LISTEN:9000,reuseaddr,fork EXEC:cat", listens=9000)
    bench.start(lines[0])
    server.says(bench.here(r"accepting connection from AF=2 192.0.2.7:1024 "), on_stderr=True)


@task("Use only IPv6, or IPv4")
def one_family(bench: Bench, lines: list[str]) -> None:
    words = "reuseaddr,fork SYSTEM"
    for server in (
        f"socat -d -d TCP4-LISTEN:9000,{words}:'echo this is 4; cat'",
        f"socat -d -d TCP6-LISTEN:9000,ipv6only=1,{words}:'echo this is 6; cat'",
    ):
        bench.start(server).says("listening", on_stderr=True)
    line = lines[0].replace("-6", "-4").replace("TCP6", "TCP4")
    bench.start(line).says("^this is 4$")
    bench.hosts["example.com"] = "[::1]" if "socat" in lines[0] else "::1"
    bench.start(lines[0]).says("^this is 6$")


@task("Use the name of a service, and see what is connected")
def service(bench: Bench, lines: list[str]) -> None:
    bench.use_service()
    bench.start("socat TCP-LISTEN:25,reuseaddr,fork EXEC:cat", listens=25)
    client = bench.start(lines[0])
    client.type("hello\n")
    client.says("^hello$")
    client.says(r"127\.0\.0\.1\b.*\b" + bench.here("(smtp|25)"), on_stderr=True)


@task("Be the `ProxyCommand` of ssh")
def ssh(bench: Bench, lines: list[str]) -> None:
    bench.start(
        "socat TCP-LISTEN:9000,reuseaddr,fork SYSTEM:'echo SSH-2.0-test; head -n 1 >> banner'", listens=9000
    )
    client = bench.start(lines[0])
    banner = bench.where / "banner"
    wait_until(
        lambda: banner.exists() and banner.read_text().startswith("SSH-2.0-OpenSSH"), lambda: f"{client}"
    )


@task("Chat")
def chat(bench: Bench, lines: list[str]) -> None:
    bench.start(lines[0], listens=9000)
    first, second = bench.start("nc example.com 9000"), bench.start("nc example.com 9000")
    # A client that has been answered is in the room.
    wait_until(lambda: _tell(first, second, "hello"), lambda: f"{second}")
    wait_until(lambda: _tell(second, first, "welcome"), lambda: f"{first}")
    assert "hello" not in first.out


def _tell(speaker: Running, hearer: Running, word: str) -> bool:
    speaker.type(f"{word}\n")
    return word in hearer.out


@task("Echo, discard")
def echo_discard(bench: Bench, lines: list[str]) -> None:
    echo = bench.start(lines[0], listens=9000)
    clients = [bench.start("nc example.com 9000") for _ in range(3)]
    for number, client in enumerate(clients):
        client.type(f"{number}\n")
    for number, client in enumerate(clients):
        client.says(f"^{number}\n$")
    bench.end(echo)
    bench.start(lines[1], listens=9000)
    for _ in range(2):
        done = bench.run("nc -N example.com 9000", "hello\n" * 10_000)
        assert (done.code, done.out) == (0, "")


@task("Run a program for each connection")
def run_a_program(bench: Bench, lines: list[str]) -> None:
    bench.start(lines[0], listens=9000)
    for _ in range(2):
        client = bench.start("nc example.com 9000")
        client.type("hello\n")
        client.says("^welcome\n$")


# ------------------------------------------------------------------------------------ datagrams and Unix sockets


@task("Exchange UDP datagrams")
def udp(bench: Bench, lines: list[str]) -> None:
    server = bench.start(lines[0], listens=9000)
    bench.run("nc -u -w 1 example.com 9000", "ping\n")
    server.says("^ping\n$")
    bench.end(server)
    bench.start("socat UDP-RECVFROM:9000,fork EXEC:cat", listens=9000)
    assert bench.run(lines[1]).out == "ping\n"


@task("Send to a broadcast address")
def broadcast(bench: Bench, lines: list[str]) -> None:
    bench.start("socat UDP-RECVFROM:9000,fork SYSTEM:'tee -a got'", listens=9000)
    done = bench.run(lines[0])
    assert (bench.where / "got").read_text() == "hello\n"
    if "nc " not in lines[0]:
        assert done.out == "hello\n"
    assert done.code == 0


@task("Receive and send multicast")
def multicast(bench: Bench, lines: list[str]) -> None:
    bench.hosts |= {"eth0": "lo", "192.0.2.7": "127.0.0.1"}
    receive, send = (
        "socat -u UDP-RECV:9000,ip-add-membership=239.1.2.3:eth0 -",
        "echo hello | socat - UDP-DATAGRAM:239.1.2.3:9000,ip-multicast-if=127.0.0.1",
    )
    for receiver_line, sender_line in ((lines[0], send), (receive, lines[1])):
        receiver = bench.start(receiver_line, listens=9000)
        assert bench.run(sender_line).code == 0
        receiver.says("^hello\n$")
        bench.end(receiver)


@task("Talk through a Unix socket")
def unix(bench: Bench, lines: list[str]) -> None:
    kinds = {"/run/app.sock": ("UNIX", "/run/app.sock"), "app": ("ABSTRACT", "app")}
    if not bench.ours:
        del kinds["app" if "/run/app.sock" in lines[0] else "/run/app.sock"]
    for name, (kind, address) in kinds.items():
        serve, call = lines
        if bench.ours and kind == "ABSTRACT":
            serve, call = (line.replace("/run/app.sock", "@app") for line in lines)
        listener = "/run/app.sock" if kind == "UNIX" else f"@{bench.where.name}"
        server = bench.start(serve, listens=listener)
        client = bench.start(f"socat - {kind}-CONNECT:{address}")
        server.type("welcome\n")
        client.says("^welcome\n$")
        client.type("hello\n")
        server.says("^hello\n$")
        bench.end(client)
        bench.end(server)
        (bench.where / name.rpartition("/")[2]).unlink(missing_ok=True)
        bench.start(f"socat {kind}-LISTEN:{address},fork EXEC:cat", listens=listener)
        client = bench.start(call)
        client.type("hello\n")
        client.says("^hello\n$")


@task("Send Unix datagrams")
def unix_datagrams(bench: Bench, lines: list[str]) -> None:
    peers = ["socat -u UNIX-RECV:/run/log.sock -", "echo hello | socat -u - UNIX-SENDTO:/run/log.sock"]
    for receive, send in ((lines[0], peers[1]), (peers[0], lines[1])):
        receiver = bench.start(receive, listens="/run/log.sock")
        assert bench.run(send).code == 0
        receiver.says("^hello\n$")
        bench.end(receiver)
        (bench.where / "log.sock").unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------------- ports


@task("Test whether a port is open")
def port_open(bench: Bench, lines: list[str]) -> None:
    closed = bench.run(lines[0])
    assert closed.code == 3 if bench.ours else closed.code == 1
    assert "refused" in closed.out + closed.err
    bench.start(ECHO, listens=9000)
    assert bench.run(lines[0]).code == 0


@task("Test many ports")
def many_ports(bench: Bench, lines: list[str]) -> None:
    (bench.where / "hosts.txt").write_text(bench.here("example.com 8001\nexample.com 8002\n"))
    (bench.where / "targets.txt").write_text(bench.here("# two\nexample.com:8001\nexample.com:8002\n"))
    bench.start("socat TCP-LISTEN:8001,reuseaddr,fork EXEC:cat", listens=8001)
    for line, tested in zip(lines, (range(8000, 8011), (8001, 8002)), strict=True):
        done = bench.run(line)
        assert done.code == 3 if bench.ours else done.code in (0, 1)
        for number in tested:
            rows = [
                row
                for row in (done.out + done.err).splitlines()
                if re.search(rf"\b{bench.port(number)}\b", row)
            ]
            assert rows, (number, done)
            assert any("refused" in row for row in rows) == (number != 8001), (number, done)


@task("Read the greeting of a server")
def greeting(bench: Bench, lines: list[str]) -> None:
    bench.start("socat TCP-LISTEN:25,reuseaddr,fork SYSTEM:'echo 220 ready; sleep 30'", listens=25)
    done = bench.run(lines[0])
    assert done.out == "220 ready\n"
    if bench.ours:
        assert (done.code, done.err) == (0, "")


# ------------------------------------------------------------------------------------------- limits of a listener


@task("Log the connections")
def log(bench: Bench, lines: list[str]) -> None:
    server = bench.start(lines[0], listens=9000)
    bench.run("nc -N -s 127.0.0.2 example.com 9000", "hello\n")
    server.says(r"127\.0\.0\.2", on_stderr=True)
    assert (bench.where / "data.txt").read_text() == "hello\n"
    if bench.ours:
        server.says('"close"', on_stderr=True)
        opened, closed = [json.loads(row) for row in server.err.splitlines() if row.startswith("{")]
        assert (opened["event"], closed["event"], closed["bytes_in"], closed["error"]) == (
            "open",
            "close",
            6,
            None,
        )
        assert closed["seconds"] > 0
        assert closed["peer"].startswith("127.0.0.2:")


@task("Accept only some addresses")
def allow(bench: Bench, lines: list[str]) -> None:
    server = bench.start(lines[0], listens=9000)
    bench.run("nc -N example.com 9000", "a stranger\n")
    bench.run("nc -N -s 192.0.2.7 example.com 9000", "a friend\n")
    server.says("^a friend\n$")


@task("Limit the number of connections, and idle ones")
def limits(bench: Bench, lines: list[str]) -> None:
    bench.start(lines[0], listens=9000)
    first = bench.start("socat - TCP:example.com:9000")
    first.type("hello\n")
    first.says("hello")
    second = bench.start("nc example.com 9000")
    second.type("me too\n")
    assert second.out == ""
    assert first.code() == 0  # it was idle
    second.says("me too")


@task("Get the socket from systemd or inetd")
def passed_socket(bench: Bench, lines: list[str]) -> None:
    bench.start(lines[0], listens=9000)
    for number in range(2):
        done = bench.run("nc -N example.com 9000", f"{number}\n")
        assert done.out == f"{number}\n"
