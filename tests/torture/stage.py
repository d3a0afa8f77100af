"""Scenes in child processes: the base of the parts forks, collector, exits, scale, threads and hostile.

A scene is one child process that takes one step after another, and says which one it begins. A step that hangs or
breaks a promise ends the process, and the steps after it are taken in a new one: one fault hides no other, and no
step begins in a broken process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.torture import certificates
from tests.torture.children import ROOT, Child, ChildFailed, last_frames
from tests.torture.registry import Budget, Finding

__all__ = [
    "Broken",
    "Later",
    "Leave",
    "Scene",
    "Steps",
    "expect",
    "library_threads",
    "peers",
    "play",
    "settle",
    "varied",
    "wait_until",
]

PEERS = "WIRELINE_TORTURE_PEERS"
"""The environment variable that tells a scene where its peers are (peers.py)."""


class Broken(Exception):
    """A promise was broken; the text says which one, and how."""


class Leave(BaseException):
    """Raised in a forked child that is to return from ``main`` in the ordinary way."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """One child process."""

    name: str
    """Flavour, kind of stream, state."""
    target: str
    """``module:function`` below ``tests.torture``; it is called with a ``Steps``, and with ``arguments``."""
    steps: Sequence[str]
    """Taken in this order."""
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 30.0
    """Silence after which the child is taken for hung."""
    fault: str = ""
    """The id that a finding of this scene is taken for."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Steps:
    """In the child: the steps to take, and the records about them."""

    def __init__(self, say: Callable[[dict[str, Any]], None], steps: Sequence[str]) -> None:
        self._say = say
        self._steps = steps
        self._process = os.getpid()

    def __iter__(self) -> Iterator[str]:
        for step in self._steps:
            self._say({"step": step})
            yield step

    def count(self, **more: int) -> None:
        """Add to the counters of the report."""
        self._say({"count": more})

    def note(self, text: str) -> None:
        """Say something that is no finding."""
        self._say({"note": text})

    def found(self, text: str) -> None:
        """A promise was broken, and the step goes on."""
        self._say({"found": text})

    @property
    def is_here(self) -> bool:
        """Whether this is the scene's own process, and not a forked child of it."""
        return os.getpid() == self._process


def expect(condition: object, text: str) -> None:
    """Raise ``Broken`` with ``text`` unless ``condition`` holds."""
    if not condition:
        raise Broken(text)


def wait_until(condition: Callable[[], object], seconds: float, text: str) -> None:
    """Look again and again until ``condition`` holds; ``Broken`` with ``text`` after so many seconds."""
    limit = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < limit, f"{text} (within {seconds:g} s)")
        time.sleep(0.005)


class Later:
    """A call in a thread of its own, and its outcome."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._outcome: object = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], object]) -> None:
        try:
            self._outcome = call()
        except BaseException as error:  # noqa: BLE001 -- raised again in `get`
            self._error = error

    @property
    def done(self) -> bool:
        """Whether it has returned or raised."""
        return not self._thread.is_alive()

    def get(self, seconds: float, text: str) -> Any:
        """Its result, or raise its exception; ``Broken`` with ``text`` if that takes longer."""
        self._thread.join(seconds)
        expect(not self._thread.is_alive(), f"{text}: no end within {seconds:g} s")
        if self._error is not None:
            raise self._error
        return self._outcome


def library_threads() -> list[str]:
    """The names of the threads that the library has started and that have not ended."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("wireline"))


def settle(
    descriptors: int, threads: int, seconds: float = 8.0, collect: Callable[[], object] = lambda: None
) -> None:
    """Wait until no more descriptors and threads of the library are there than before; ``Broken`` if they stay.

    Args:
        descriptors: how many were open in this process.
        threads: how many ``library_threads`` there were.
        seconds: how long to wait. A lingering close may take 2 s by itself.
        collect: called before each look.
    """
    limit = time.monotonic() + seconds
    while True:
        collect()
        now = len(os.listdir("/proc/self/fd")), len(library_threads())
        if now[0] <= descriptors and now[1] <= threads:
            return
        if time.monotonic() > limit:
            break
        time.sleep(0.02)
    names = library_threads()[:8]
    raise Broken(
        f"left behind after {seconds:g} s: {now[0] - descriptors:+} descriptors, {now[1] - threads:+} threads ({names})"
    )


# ------------------------------------------------------------------------------------------ the child's side


def enter(
    say: Callable[[dict[str, Any]], None], target: str, steps: list[str], arguments: dict[str, Any]
) -> None:
    """Take the steps of a scene. An exception of a step ends the process; the parent takes the rest in another one."""
    module, _, function = target.partition(":")
    taking = Steps(say, steps)
    scene = getattr(__import__(f"tests.torture.{module}", fromlist=[function]), function)
    try:
        scene(taking, **arguments)
    except (Leave, SystemExit):
        expect(not taking.is_here, "the scene itself has left")
        return  # a forked child: the interpreter ends in the ordinary way
    except BaseException as error:
        if not taking.is_here:
            raise
        say({"broken": _told(error)})
        sys.stdout.flush()
        os._exit(0)
    if taking.is_here:
        say({"end": True})


def _told(error: BaseException) -> str:
    if isinstance(error, Broken):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    where = " < ".join(
        f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}" for frame in reversed(frames)
    )
    return f"{type(error).__name__}: {error}\n{where}"


# ----------------------------------------------------------------------------------------- the parent's side


def varied(scenes: Sequence[Scene], *names: str) -> list[Scene]:
    """The same scenes, first one of each sort: a budget that ends early has seen all sorts.

    Args:
        scenes: in any order, which is kept otherwise.
        names: the arguments that make a sort, beside the target.
    """
    seen: set[tuple[object, ...]] = set()
    first, rest = [], []
    for scene in scenes:
        sort = (scene.target, *(scene.arguments.get(name) for name in names))
        (rest if sort in seen else first).append(scene)
        seen.add(sort)
    return first + rest


def play(part: str, budget: Budget, scenes: Sequence[Scene], *, jobs: int = 3) -> Iterator[Finding]:
    """Play scenes side by side, in their order, until all are played or the budget is spent.

    Yields:
        The findings, each as soon as it is made.
    """
    found: queue.SimpleQueue[Finding | None] = queue.SimpleQueue()
    counting = threading.Lock()

    def one(scene: Scene) -> None:
        try:
            if not budget.spent():
                _play_one(part, budget, scene, found, counting)
        except Exception as error:  # noqa: BLE001 -- a mistake of the harness is a finding, not a silence
            found.put(Finding(part, scene.name, "the harness itself", _told(error)))
        finally:
            found.put(None)

    scenes = [scene for scene in scenes if budget.wants(scene.name)]
    with ThreadPoolExecutor(jobs) as pool:
        for scene in scenes:
            pool.submit(one, scene)
        missing = len(scenes)
        while missing:
            finding = found.get()
            if finding is None:
                missing -= 1
            else:
                yield finding


def _where(stacks: str) -> str:
    """The innermost frames of the thread that tells most: the one that ran, if it ran the library, else one in it."""
    blocks = [
        "Thread " + block for block in stacks.replace("Current thread", "Thread *").split("Thread ")[1:]
    ]
    inside = [block for block in blocks if "/wireline/" in block]
    running = [block for block in inside if block.startswith("Thread *")]
    return last_frames((running or inside or blocks or [stacks])[0])


def _play_one(
    part: str,
    budget: Budget,
    scene: Scene,
    found: queue.SimpleQueue[Finding | None],
    counting: threading.Lock,
) -> None:
    left = list(scene.steps)
    while left and not budget.spent():
        step = ""
        over = False

        def finding(text: str, step_: str = "") -> None:
            found.put(Finding(part, scene.name, step_, text, scene.fault))

        arguments = {"target": scene.target, "steps": left, "arguments": dict(scene.arguments)}
        with Child("tests.torture.stage:enter", arguments, environment=scene.environment) as child:
            try:
                for record in child.records(scene.seconds):
                    if "step" in record:
                        if budget.spent():
                            return
                        step = record["step"]
                        left = left[left.index(step) + 1 :]
                        with counting:
                            budget.counts.add(scenes=1)
                    elif "count" in record:
                        with counting:
                            budget.counts.add(**record["count"])
                    elif "note" in record:
                        with counting:
                            budget.note(f"{scene.name}: {record['note']}")
                    elif "found" in record or "broken" in record:
                        over = "broken" in record
                        finding(record["found"] if "found" in record else record["broken"], step)
                    elif "end" in record:
                        over, left = True, []
            except ChildFailed as failure:
                over = True
                if failure.kind == "hang":
                    text = f"hangs: {_where(failure.text)}\n{failure.text}"
                else:
                    text = f"the process ended with status {failure.status}\n{failure.text}"
                finding(text, step)
            if not over:
                finding("the process ended before its steps\n" + child.text(), step)
            if not step:
                return  # it did not get to the first one; it would not next time


@contextlib.contextmanager
def peers() -> Iterator[dict[str, str]]:
    """Start the process with the peers (peers.py); the yielded variables go into the environment of the scenes."""
    with tempfile.TemporaryDirectory(prefix="torture-") as directory:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.peers", directory],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("the peers did not start")
            yield {PEERS: line.decode(), certificates.DIRECTORY: directory}
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.terminate()
            process.wait()
            process.stdout.close()
