"""Child processes for code that may hang, crash or leave something behind.

A child calls one function, ``module:function``, with keyword arguments (JSON), and hands records (JSON, too) back over
a pipe of its own while it works. So the parent knows what a child was doing when it went silent: it then asks for the
stacks of all threads (``faulthandler`` on SIGABRT), ends the child and everything that the child started, and goes on.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
"""Where ``tests`` is importable from."""

RAISED = 70
"""The exit status of a child whose function raised: mostly a mistake of the harness, not of the tested code."""

_LAST_LINES = 200


class ChildFailed(Exception):
    """The child hung, crashed or raised.

    Attributes:
        kind: ``"hang"``, or ``"death"``.
        text: its last output, with stacks.
        status: the exit status, negative for a signal.
    """

    def __init__(self, kind: str, text: str, status: int) -> None:
        super().__init__(f"{kind} (status {status}): {text}")
        self.kind = kind
        self.text = text
        self.status = status


class Child:
    """A child that calls ``target(say, **arguments)``; ``say(record)`` hands a record to the parent.

    A context manager: at its end the child, and its process group, are gone.
    """

    def __init__(
        self,
        target: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        reading, writing = os.pipe()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 -- `close` closes it
        self._pipe = reading
        self._held = b""
        paths = [ROOT, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        try:
            self._process = subprocess.Popen(
                [python, "-m", "tests.torture.children", str(writing), target, json.dumps(arguments or {})],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                pass_fds=(writing,),
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            self._output.close()
            raise
        finally:
            os.close(writing)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def records(self, patience: float) -> Iterator[dict[str, Any]]:
        """The records of the child, until it ends.

        Args:
            patience: seconds of silence after which it hangs.

        Raises:
            ChildFailed: it hung, or ended by a signal or with another status than 0.
        """
        while True:
            while b"\n" in self._held:
                line, _, self._held = self._held.partition(b"\n")
                yield json.loads(line)
            if not select.select([self._pipe], [], [], patience)[0]:
                raise ChildFailed("hang", self._stacks(), 0)
            data = os.read(self._pipe, 65536)
            if not data:
                break
            self._held += data
        # The pipe ends when the child closes it: at its exit, if it ends in good order.
        try:
            status = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            raise ChildFailed("hang", "at the exit of the interpreter\n" + self._stacks(), 0) from None
        if status != 0:
            raise ChildFailed("death", self.text(), status)

    def _stacks(self) -> str:
        before = self._output.seek(0, os.SEEK_END)
        self._process.send_signal(signal.SIGABRT)
        limit = time.monotonic() + 2.0
        while self._process.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)  # there is no event for "it has written its stacks"; its death is the next best
        self._output.seek(before)
        return self._output.read().decode(errors="replace").strip()

    def text(self) -> str:
        """The last lines that the child wrote to its output."""
        self._output.seek(0)
        return "\n".join(self._output.read().decode(errors="replace").strip().splitlines()[-_LAST_LINES:])

    def close(self) -> None:
        """End the child, if it is there still, with all it started."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self._process.kill()
        self._process.wait()
        os.close(self._pipe)
        self._output.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def call(
    target: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> list[dict[str, Any]]:
    """Call a function in a child and return all its records; ``timeout`` is for the whole.

    Raises:
        ChildFailed: as for ``Child.records``.
    """
    limit = time.monotonic() + timeout
    with Child(target, arguments, environment=environment, python=python) as child:
        said = []
        for record in child.records(timeout):
            said.append(record)
            if time.monotonic() > limit:
                raise ChildFailed("hang", child._stacks(), 0)
        return said


def last_frames(text: str, count: int = 6) -> str:
    """The innermost frames of the first stack in ``faulthandler``'s output, on one line."""
    frames = []
    for line in text.splitlines():
        if line.strip().startswith("File "):
            file, _, rest = line.strip().removeprefix("File ").partition(", line ")
            number, _, function = rest.partition(" in ")
            frames.append(f"{os.path.basename(file.strip(chr(34)))}:{number} {function}")
        elif frames:
            break
    return " < ".join(frames[:count])


def _main(pipe: int, target: str, arguments: dict[str, Any]) -> None:
    faulthandler.enable()
    os.set_inheritable(pipe, False)
    module, _, function = target.partition(":")

    def say(record: dict[str, Any]) -> None:
        data = json.dumps(record).encode() + b"\n"
        while data:
            data = data[os.write(pipe, data) :]

    try:
        getattr(importlib.import_module(module), function)(say, **arguments)
    except BaseException:  # noqa: BLE001 -- it is reported, and the process ends
        # Threads that wait for something would keep the interpreter from its end, and this would look like a hang.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(RAISED)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
