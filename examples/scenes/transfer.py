"""Real data, a lot of it, from one process to another: ``wireline connect < file`` and ``wireline listen > file``."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
import tarfile
import time
from pathlib import Path

from examples.scenes.stage import Stage, wireline

MIB = 1024 * 1024


def play(stage: Stage) -> None:
    """Send a tar of the standard library and compare digests."""
    source, target = stage.directory / "stdlib.tar", stage.directory / "received.tar"
    _make_tar(source, stage.size)
    size = source.stat().st_size
    stage.show(f"a tar of the Python standard library, {size / MIB:.1f} MiB")
    seconds = _transfer(stage, source, target)
    stage.check(target.stat().st_size == size, f"{size} bytes arrived", target.stat().st_size)
    sent, received = _digest(source), _digest(target)
    stage.check(received == sent, f"SHA-256 is {sent[:16]}... on both sides", received)
    stage.moved += size
    stage.show(f"{size / MIB / seconds:.0f} MiB/s, the start of the sending process included")


def _transfer(stage: Stage, source: Path, target: Path) -> float:
    """Send one file into another; return the seconds it took."""
    with target.open("wb") as sink, wireline(stage, "listen", "127.0.0.1:0", stdout=sink) as receiver:
        address = receiver.listening_on()
        began = time.monotonic()
        # On a terminal its messages are not caught: they show its progress.
        messages = None if sys.stderr.isatty() else subprocess.PIPE
        with (
            source.open("rb") as data,
            wireline(
                stage, "connect", "--at-eof", "half-close", address, stdin=data, stderr=messages
            ) as sender,
        ):
            sender.finish()
        receiver.finish()
        return time.monotonic() - began


def _make_tar(path: Path, size: int) -> None:
    """Tar the standard library, as often as it takes to have ``size`` bytes."""
    library = Path(sysconfig.get_path("stdlib"))
    files = sorted(library.glob("*.py")) + sorted(library.glob("[a-z]*/**/*.py"))
    with path.open("wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        while file.tell() < size:
            for member in files:
                tar.add(member, member.relative_to(library))
                if file.tell() >= size:
                    break


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
