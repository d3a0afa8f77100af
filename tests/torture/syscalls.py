"""System calls that fail in turn, in the process itself: every call of every scene, with every error it may have."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, NamedTuple

import trio
from trio.lowlevel import current_statistics

from tests.scenarios import tasks
from tests.torture import scenes
from tests.torture.children import RAISED, Child, ChildFailed, last_frames
from tests.torture.peer import KINDS, Peer
from tests.torture.registry import Budget, Finding
from tests.torture.scenes import PATIENCE, Stage
from tests.torture.shim import ERRORS, Control, build
from wireline import BusyError, DialError, EndOfStreamError, SocketTimeout, WirelineError
from wireline.testing import TestCA

FLAVOURS = ("blocking", "asyncio", "uvloop", "trio")

SETTLING = 3.0
"""Seconds that descriptors and threads get to go. A lingering close may take 2 s of them."""

SILENCE = 15.0
"""Seconds after which a child hangs: more than the waits of one case that has lost a wake-up."""

_ENOUGH = 2
"""Findings of one kind of call in one scene, after which its other cases are left out: each may take seconds."""

_GONE = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTUNREACH)


class Case(NamedTuple):
    """One call that fails in one way."""

    scene: str
    call: str
    number: int
    code: int

    def __str__(self) -> str:
        return f"{self.call} number {self.number} fails with {errno.errorcode[self.code]}"


def _cases(counts: dict[str, dict[str, int]]) -> list[Case]:
    return [
        Case(scene, call, number, code)
        for scene, calls in counts.items()
        for call, count in calls.items()
        for number in range(1, min(count, 60) + 1)
        for code in ERRORS[call]
    ]


def run(budget: Budget) -> Iterator[Finding]:
    """Every case of every flavour and kind of stream, as far as the budget goes."""
    budget.note("epoll calls of libuv itself are not made to fail: it ends the process then")
    combinations = [(flavour, kind) for kind in reversed(KINDS) for flavour in FLAVOURS]
    with tempfile.TemporaryDirectory(prefix="wireline-torture-") as directory:
        try:
            shim = build(directory)
        except (OSError, subprocess.CalledProcessError) as error:
            raise RuntimeError(f"the shim cannot be compiled: {getattr(error, 'stderr', error)}") from error
        TestCA().write(directory)
        if not budget.full:
            budget.random.shuffle(combinations)
        if budget.size == "sample":
            combinations = [(flavour, "tls13") for flavour in FLAVOURS[:2]]
        combinations = [each for each in combinations if budget.wants(" ".join(each))]
        for position, (flavour, kind) in enumerate(combinations):
            if flavour == "uvloop" and not _has_uvloop():
                budget.note("uvloop is not installed: its scenes were left out")
                continue
            seconds = budget.remaining() / (len(combinations) - position)
            yield from _combination(budget, flavour, kind, directory, shim, seconds)


def _has_uvloop() -> bool:
    import importlib.util

    return importlib.util.find_spec("uvloop") is not None


def _combination(
    budget: Budget, flavour: str, kind: str, directory: str, shim: dict[str, str], seconds: float
) -> Iterator[Finding]:
    limit = time.monotonic() + seconds
    counts: dict[str, dict[str, int]] = {}
    todo: list[Case] = []
    seen: Counter[tuple[str, str]] = Counter()
    names = [name for name in scenes.NAMES if name not in scenes.ONLY_PLAIN or kind == "plain"]
    if budget.size == "sample":
        names = ["echo", "serve"]
    elif not budget.full:
        # To count the calls of all scenes takes longer than to let some of them fail.
        names = budget.shuffled(names)[:4]
    while not counts or (todo and time.monotonic() < limit):
        arguments = {"flavour": flavour, "kind": kind, "directory": directory, "names": names, "cases": todo}
        arguments["seconds"] = max(0.5, limit - time.monotonic())
        case: Case | None = None
        with Child("tests.torture.syscalls:work", arguments, environment=shim) as child:
            try:
                for record in child.records(SILENCE):
                    if "counts" in record:
                        counts = record["counts"]
                        todo = budget.shuffled(_cases(counts))
                        budget.counts.add(scenes=len(counts), connections=record["connections"])
                    elif "begin" in record:
                        case = Case(*record["begin"])
                        todo.remove(case)
                    else:
                        assert case is not None
                        budget.counts.add(calls_failed=record["fired"], connections=record["connections"])
                        if found := record["findings"]:
                            seen[case.scene, case.call] += 1
                            short = "; ".join(text.splitlines()[0] for text in found)
                            yield _finding(flavour, kind, case, "\n".join([short, *found]))
            except ChildFailed as failed:
                if case is None or failed.status == RAISED:
                    text = f"the scenes fail without a failing call\n{failed.text}"
                    yield Finding(
                        "syscalls", f"{flavour}, {kind}", "nothing" if case is None else str(case), text
                    )
                    return
                what = "hangs" if failed.kind == "hang" else f"died with status {failed.status}"
                seen[case.scene, case.call] += 1
                happened = f"the process {what}: {last_frames(failed.text)}\n{failed.text}"
                yield _finding(flavour, kind, case, happened)
        todo = [case for case in todo if seen[case.scene, case.call] < _ENOUGH]


def _finding(flavour: str, kind: str, case: Case, happened: str) -> Finding:
    fault = ""
    if "a thread (wireline-linger)" in happened or "in add\n" in happened:
        fault = "FA3"
    return Finding("syscalls", f"{flavour}, {kind}, {case.scene}", str(case), happened, fault)


# In the child.


class _Tested:
    """The process under test: the state that must be the same after each case."""

    def __init__(self, flavour: str, kind: str, directory: str, names: list[str]) -> None:
        self.control = Control.mapped(os.environ["WIRELINE_SHIM"])
        self.peer = Peer(directory)
        tls = None if kind == "plain" else scenes.context(directory)
        self.stage = Stage(kind, self.peer, tls)
        self.names = names
        self.unhandled: list[str] = []
        self.connections = 0
        threading.excepthook = lambda args: self._note(
            f"a thread ({args.thread and args.thread.name})", args.exc_value
        )
        sys.unraisablehook = lambda args: self._note(
            f"a finalizer or callback ({args.err_msg})", args.exc_value
        )
        warnings.simplefilter("always")
        warnings.showwarning = self._warned
        self.loop: asyncio.AbstractEventLoop | None = None
        self.flavour = flavour
        if flavour == "asyncio":
            self.loop = asyncio.SelectorEventLoop()
        elif flavour == "uvloop":
            import uvloop

            self.loop = uvloop.new_event_loop()
        if self.loop is not None:
            self.loop.set_exception_handler(self._handle)
        self.healthy: Any = None
        self.descriptors: dict[int, str] = {}
        self.registered: list[int] = []
        self.tasks_living = 0

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run all the work, in the one loop; of the blocking flavour it never waits."""
        if self.loop is not None:
            self.loop.run_until_complete(work)
        elif self.flavour == "trio":

            async def main() -> None:
                await work

            trio.run(main)
        else:
            with contextlib.suppress(StopIteration):
                work.send(None)
                raise AssertionError("the blocking flavour has no loop to wait in")

    async def begin(self) -> None:
        """Take down how it is before anything fails."""
        before = _descriptors()
        if self.flavour == "blocking":
            self.healthy = scenes.dialled(self.stage)
        else:
            self.healthy = await scenes.async_dialled(self.stage)
        await self._exchange("healthy from the beginning")
        for name in self.names:
            await self.play(name)  # objects of the process are made now
        await self._wait_for(lambda: len(threading.enumerate()) == 1)
        await self._wait_for(lambda: len(_descriptors()) <= len(before) + 1)
        self.descriptors = _descriptors()
        self.registered = self._registered()
        if self.flavour == "trio":
            self.tasks_living = current_statistics().tasks_living
        epolls = {fd for fd, name in self.descriptors.items() if "eventpoll" in name}
        self.control.spare(self.descriptors.keys() - epolls)
        gc.collect()
        gc.freeze()  # so that a search for garbage takes a millisecond

    def _note(self, where: str, error: BaseException | None) -> None:
        if error is not None:
            text = "".join(traceback.format_exception(error))
            self.unhandled.append(f"not handled in {where}: {error!r}\n{text}")

    def _handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._note(
            f"the loop: {context.get('message')}", context.get("exception") or RuntimeError(repr(context))
        )

    def _warned(self, message: Warning | str, category: type[Warning], *_: Any) -> None:
        if issubclass(category, ResourceWarning):
            self.unhandled.append(f"left to the collector: {message}")

    async def _exchange(self, word: str) -> None:
        if self.flavour == "blocking":
            scenes.ping(self.healthy, word)
        else:
            await scenes.async_ping(self.healthy, word)

    async def play(self, name: str) -> None:
        """Run one scene to its end."""
        self.connections += 3 if name == "serve" else name not in scenes.ONLY_PLAIN
        if self.flavour == "blocking":
            scenes.BLOCKING[name](self.stage)
            return
        if self.flavour == "trio":
            with trio.move_on_after(4 * PATIENCE) as scope:
                await scenes.ASYNC[name](self.stage)
            if scope.cancelled_caught:
                raise scenes.Wrong("the scene hangs: nothing wakes its task")
            return
        try:
            async with asyncio.timeout(4 * PATIENCE) as limit:
                await scenes.ASYNC[name](self.stage)
        except TimeoutError:
            if limit.expired():
                raise scenes.Wrong("the scene hangs: nothing wakes its task") from None
            raise

    async def play_armed(self, name: str, call: str = "", number: int = 0, code: int = 0) -> dict[str, int]:
        """Run one scene with the shim at work, until its background work is done, too."""
        self.peer.visits()  # unread data of a scene before this one
        self.control.arm(call, number, code)
        try:
            await self.play(name)
        finally:
            await self._wait_for(self._is_settled, 0.5)
            counts = self.control.disarm()
        return counts

    def _is_settled(self) -> bool:
        return len(threading.enumerate()) == 1 and _descriptors() == self.descriptors

    def _registered(self) -> list[int]:
        """Descriptors that the loop watches; of a loop that lets itself be asked."""
        selector = getattr(self.loop, "_selector", None)
        return [] if selector is None else sorted(selector.get_map())

    async def _wait_for(self, condition: Callable[[], bool], seconds: float = SETTLING) -> bool:
        began = time.monotonic()
        while not condition():
            if (waited := time.monotonic() - began) > seconds:
                return False
            # A thread of the library closes the rest, and no event reports it.
            if self.flavour != "blocking":
                await tasks.sleep(0.001)
            else:
                time.sleep(0.001)  # noqa: ASYNC251 -- there is no loop
            if waited > 0.4:
                gc.collect()  # a socket that only the collector closes warns, and is found by that
        return True

    async def aftermath(self) -> AsyncIterator[str]:
        """The differences."""
        if self.loop is not None:
            gc.collect()  # an exception that no task's owner asked for is reported when the task is collected
            await asyncio.sleep(0)
            if left := asyncio.all_tasks(self.loop) - {asyncio.current_task()}:
                yield f"tasks left: {left}"
        elif self.flavour == "trio" and not await self._wait_for(
            lambda: current_statistics().tasks_living <= self.tasks_living
        ):
            yield f"tasks left: {current_statistics()}"
        try:
            await self._exchange("healthy")
        except Exception as error:  # noqa: BLE001 -- any exception is a finding
            yield f"a healthy connection of the same process is broken: {_described(error)}"
        try:
            await self.play("dial")
        except Exception as error:  # noqa: BLE001 -- as above
            yield f"the next connection does not work: {_described(error)}"
        if not await self._wait_for(lambda: _descriptors() == self.descriptors):
            now = _descriptors()
            more = {fd: name for fd, name in now.items() if self.descriptors.get(fd) != name}
            yield f"descriptors left: {more}, gone: {self.descriptors.keys() - now.keys()}"
        if not await self._wait_for(lambda: len(threading.enumerate()) == 1):
            yield f"threads left: {[thread.name for thread in threading.enumerate()[1:]]}"
        if (now := self._registered()) != self.registered:
            yield f"the loop still watches {set(now) - set(self.registered)}"
        for text in self.unhandled:
            yield text
        self.unhandled.clear()


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def _described(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "wireline" in frame.filename]
    where = " < ".join(
        f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames[:-5:-1]
    )
    return f"{error!r} at {where}\n{''.join(traceback.format_exception(error))}"


def _codes(error: BaseException | None, depth: int = 0) -> Iterator[int | None]:
    """The errnos of an error and of all that led to it."""
    if error is None or depth > 8:
        return
    yield getattr(error, "errno", None)
    if isinstance(error, DialError):
        for attempt in error.attempts:
            yield from _codes(attempt[1], depth + 1)
    yield from _codes(error.__cause__, depth + 1)
    yield from _codes(error.__context__, depth + 1)


def _judged(error: Exception, code: int) -> str | None:
    """Say whether this is no error that a caller may get when a call has failed with that code."""
    if isinstance(error, scenes.Wrong):
        return f"{error}"
    if isinstance(error, scenes.Ended):
        return None if code in _GONE else f"{error}"
    if isinstance(error, SocketTimeout):
        return f"a wake-up was lost: {_described(error)}"
    if isinstance(error, BusyError) or not isinstance(error, OSError | WirelineError):
        return f"no error that is documented: {_described(error)}"
    if isinstance(error, EndOfStreamError) or code in _codes(error):
        return None
    import ssl

    if isinstance(error, ssl.SSLError):
        return None
    # For ENOTCONN the shim has ended both directions: an answer of the peer that arrives after that is a reset.
    if code == errno.ENOTCONN and isinstance(error, ConnectionResetError):
        return None
    return f"the error does not say what failed: {_described(error)}"


def work(
    say: Callable[[dict[str, Any]], None],
    flavour: str,
    kind: str,
    directory: str,
    names: list[str],
    cases: list[Case],
    seconds: float,
) -> None:
    """Play every scene once and count its calls; or play the given cases, until one leaves something behind."""
    tested = _Tested(flavour, kind, directory, names)
    tested.run(_work(say, tested, list(itertools.starmap(Case, cases)), time.monotonic() + seconds))
    os._exit(0)  # the peer goes with the process group


async def _work(
    say: Callable[[dict[str, Any]], None], tested: _Tested, cases: list[Case], limit: float
) -> None:
    await tested.begin()
    if not cases:
        counts = {name: await tested.play_armed(name) for name in tested.names}
        if spoiled := [text async for text in tested.aftermath()]:
            raise AssertionError(f"a scene leaves something behind without any fault: {spoiled}")
        say({"counts": counts, "connections": tested.connections})
    for case in cases:
        if time.monotonic() > limit:
            break
        say({"begin": case})
        before = tested.connections
        found = []
        try:
            await tested.play_armed(*case)
        except Exception as error:  # noqa: BLE001 -- judging it is the point
            if verdict := _judged(error, case.code):
                found.append(verdict)
            del error
        fired = tested.control.fired
        bad = [text async for text in tested.aftermath()]
        say({"fired": fired, "connections": tested.connections - before, "findings": found + bad})
        if bad:
            break  # the next scene begins in a fresh process
