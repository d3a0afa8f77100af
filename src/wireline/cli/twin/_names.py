"""What each name is in the twin, and what to write instead of a name that has no twin.

The names of the library are found by comparing the public names of the two flavours, so that this file need not change
when they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from wireline import asyncnet, net, testing
from wireline.tls import SslContext

ASYNC_MODULE = asyncnet.__name__
BLOCKING_MODULE = net.__name__


def blocking_name(name: str, others: Iterable[str]) -> str | None:
    """The name among others that is the blocking form of a name; None if there is none."""
    forms = (
        name,
        name.removeprefix("Async"),
        name.removeprefix("async_"),
        name.removeprefix("Starting"),  # what `serve` returns is the server itself
        name.removesuffix("_async"),
        f"{name.removesuffix('_async')}_socket",  # wrap_connected_async
    )
    return next((form for form in forms if form in set(others)), None)


def _renamed(names: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    others = set(others)
    found = {name: blocking_name(name, others) for name in names}
    return {name: twin for name, twin in found.items() if twin is not None and twin != name}


def _renamed_within(names: Iterable[str]) -> dict[str, str]:
    """The names of one interface that has both flavours."""
    names = set(names)
    awaited = {name for name in names if name.startswith(("Async", "async_")) or name.endswith("_async")}
    return _renamed(awaited, names - awaited)


LIBRARY: Mapping[str, str] = {
    **_renamed(asyncnet.__all__, net.__all__),
    **_renamed_within(testing.__all__),
    **_renamed_within(dir(SslContext)),
}
"""The names of the library that are others in the blocking flavour, with the other name."""

MODULE_OF = {name: BLOCKING_MODULE if name in asyncnet.__all__ else testing.__name__ for name in LIBRARY}
"""Where the twins of these names are; for methods it does not matter."""

ONLY_ASYNC = frozenset(name for name in asyncnet.__all__ if blocking_name(name, net.__all__) is None)
"""The names of the async flavour that the blocking one has not."""

SPECIAL = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
}
MEMBERS = SPECIAL | {
    "aclose": "close",
    "asend": "send",
    "athrow": "throw",
    "enter_async_context": "enter_context",
    "push_async_callback": "callback",
    "push_async_exit": "push",
    "asyncSetUp": "setUp",
    "asyncTearDown": "tearDown",
    "addAsyncCleanup": "addCleanup",
    "enterAsyncContext": "enterContext",
}
"""Methods, as they are defined and as they are called."""

BUILTINS = {"anext": "next", "aiter": "iter", "StopAsyncIteration": "StopIteration"}

_ITERATION = {
    "AsyncIterator": "Iterator",
    "AsyncIterable": "Iterable",
    "AsyncGenerator": "Generator",
}
_CONTEXTS = {
    "asynccontextmanager": "contextmanager",
    "aclosing": "closing",
    "AbstractAsyncContextManager": "AbstractContextManager",
    "AsyncContextDecorator": "ContextDecorator",
    "AsyncExitStack": "ExitStack",
}
_THREADING = ("Lock", "Event", "Condition", "Semaphore")

LOOPS = ("asyncio", "anyio", "trio")
"""The libraries of which some names have a twin. The import of one is left out when nothing needs it any more."""


def _inside(module: str, names: Mapping[str, str]) -> dict[str, str]:
    return {f"{module}.{name}": f"{module}.{twin}" for name, twin in names.items()}


STANDARD: Mapping[str, str] = {
    **_inside("contextlib", _CONTEXTS),
    **_inside("collections.abc", _ITERATION),
    **_inside("typing", {**_ITERATION, "AsyncContextManager": "ContextManager"}),
    **_inside("typing_extensions", {**_ITERATION, "AsyncContextManager": "ContextManager"}),
    **_inside("types", {"AsyncGeneratorType": "GeneratorType"}),
    **_inside("unittest", {"IsolatedAsyncioTestCase": "TestCase"}),
    **_inside("unittest.mock", {"AsyncMock": "MagicMock"}),
    # The blocking forms have the same methods. They are shared by threads, as the others are by tasks.
    **{f"{library}.{name}": f"threading.{name}" for library in LOOPS for name in _THREADING},
    "asyncio.BoundedSemaphore": "threading.BoundedSemaphore",
    **{f"{library}.sleep": "time.sleep" for library in LOOPS},
    "asyncio.TimeoutError": "TimeoutError",  # another name of it since Python 3.11
}
"""Names of the standard library, with their modules. A twin without a dot is built in."""

WITHOUT_IMPORT = frozenset(
    {"asyncio.run", "asyncio.to_thread", "asyncio.TimeoutError", "anyio.run", "trio.run"}
)
"""The twin needs no import in the place of these: the calls of functions are replaced, the error is built in."""

WRAPPERS = {
    f"{module}.{name}": argument
    for module in ("collections.abc", "typing", "typing_extensions")
    for name, argument in (("Awaitable", 0), ("Coroutine", 2))
}
"""Types of something to be awaited, and which of their arguments the twin has in their place."""

GENERATORS = tuple(
    f"{module}.AsyncGenerator" for module in ("collections.abc", "typing", "typing_extensions")
)
"""Their twin has a third argument, the type of the result, which is None."""

STAR_REFUSED = frozenset(name.rpartition(".")[0] for name in STANDARD) | {ASYNC_MODULE}
"""Modules that must not be imported with ``*``, because their names have to be known."""

FOREIGN = (
    "asyncio",
    "trio",
    "anyio",
    "uvloop",
    "curio",
    "sniffio",
    "async_timeout",
    "aiostream",
    "asyncstdlib",
)
"""Packages for async programs only."""

_ONLY_ASYNC_MODULES = ("wireline.adapters.anyio", "wireline.adapters.trio")

# What to write instead.
_TASKS = (
    "the twin has no tasks: await the calls one after the other, or mark this with '# async:' and write what the twin "
    "does with '# blocking:'"
)
_LIMITS = "give the calls a timeout=, or all of them one wireline.Deadline"
_LOOPS = "the twin has no event loop: mark what needs it with '# async:'"
_CANCELLED = (
    "blocking calls are not cancelled: mark the line with '# async:', or write another one with '# blocking:'"
)
_QUEUES = (
    "a queue connects tasks, and the twin has none: if it connects threads there, write it with "
    "'# blocking: ... queue.Queue()'"
)
_ASKS = "the twin calls plain functions: mark this with '# async:'"
_STREAMS = "use wireline.asyncnet.dial or serve"

_INSTEAD = {
    **dict.fromkeys(
        (
            "asyncio.gather",
            "asyncio.create_task",
            "asyncio.ensure_future",
            "asyncio.TaskGroup",
            "asyncio.Task",
            "asyncio.Future",
            "asyncio.wait",
            "asyncio.as_completed",
            "asyncio.shield",
            "asyncio.current_task",
            "asyncio.all_tasks",
            "anyio.create_task_group",
            "trio.open_nursery",
            "trio.Nursery",
        ),
        _TASKS,
    ),
    **dict.fromkeys(
        (
            "asyncio.timeout",
            "asyncio.timeout_at",
            "asyncio.wait_for",
            "asyncio.Timeout",
            *(
                f"{library}.{name}"
                for library in ("anyio", "trio")
                for name in ("fail_after", "move_on_after")
            ),
            "async_timeout.timeout",
        ),
        _LIMITS,
    ),
    **dict.fromkeys(
        (
            *(f"asyncio.{name}event_loop" for name in ("get_", "set_", "new_")),
            "asyncio.get_running_loop",
            "asyncio.AbstractEventLoop",
            "asyncio.Runner",
        ),
        _LOOPS,
    ),
    **dict.fromkeys(
        ("asyncio.CancelledError", "trio.Cancelled", "anyio.get_cancelled_exc_class"), _CANCELLED
    ),
    **dict.fromkeys((f"asyncio.{kind}Queue" for kind in ("", "Lifo", "Priority")), _QUEUES),
    **dict.fromkeys(("asyncio.QueueEmpty", "asyncio.QueueFull", "asyncio.QueueShutDown"), _QUEUES),
    **dict.fromkeys(
        (
            "asyncio.open_connection",
            "asyncio.open_unix_connection",
            "asyncio.start_server",
            "asyncio.start_unix_server",
            "asyncio.StreamReader",
            "asyncio.StreamWriter",
        ),
        _STREAMS,
    ),
    **dict.fromkeys(
        (
            *(f"inspect.{name}" for name in ("iscoroutine", "iscoroutinefunction", "isawaitable")),
            *(f"inspect.{name}" for name in ("isasyncgen", "isasyncgenfunction", "markcoroutinefunction")),
            "asyncio.iscoroutine",
            "asyncio.iscoroutinefunction",
            "types.coroutine",
            "types.CoroutineType",
        ),
        _ASKS,
    ),
    "asyncio.to_thread": "only its call has one: asyncio.to_thread(FUNCTION, ARGUMENT) is FUNCTION(ARGUMENT)",
    "asyncio.run": "only asyncio.run(CALL), without further arguments, has a twin: CALL",
    **{
        f"{library}.run": f"only {library}.run(FUNCTION, ARGUMENT), without options, has a twin: FUNCTION(ARGUMENT)"
        for library in ("anyio", "trio")
    },
    "asyncio.Barrier": "a blocking barrier is no context manager: write threading.Barrier with '# blocking:'",
}


def instead_of(dotted: str) -> str | None:
    """What to write instead of a name that has no twin, as a sentence; None if the name may stay."""
    if dotted.startswith(_ONLY_ASYNC_MODULES):
        return f"{dotted} has no twin: {BLOCKING_MODULE} has nothing of this kind; mark it with '# async:'"
    root, _, rest = dotted.partition(".")
    if root in FOREIGN and rest:
        dotted = f"{root}.{rest.partition('.')[0]}"  # the rest is an attribute of that
    if dotted in STANDARD:
        return None
    if advice := _INSTEAD.get(dotted):
        return f"{dotted} has no twin: {advice}"
    if root in FOREIGN:
        return f"{dotted} has no twin: mark {'it' if rest else 'the import'} with '# async:'"
    module, _, name = dotted.rpartition(".")
    if module == ASYNC_MODULE and name in ONLY_ASYNC:
        return f"{dotted} has no twin: {BLOCKING_MODULE} has nothing of this kind; mark it with '# async:'"
    return None


def twin_of(dotted: str) -> str:
    """The name, with its module, in the twin; the same if it is no name of an async interface."""
    if dotted in STANDARD:
        return STANDARD[dotted]
    if dotted == ASYNC_MODULE:
        return BLOCKING_MODULE
    module, _, name = dotted.rpartition(".")
    if module == ASYNC_MODULE:
        return f"{BLOCKING_MODULE}.{LIBRARY.get(name, name)}"
    return f"{module}.{LIBRARY.get(name, name)}" if module.startswith("wireline") else dotted
