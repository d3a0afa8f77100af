"""The documentation is true: its programs run and print the output on the page, and its names exist."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import inspect
import operator
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

import wireline
from tests.cases import in_turn
from tests.test_docstrings import PUBLIC
from tests.tools import require_tool
from wireline import asyncnet, net, testing, tls
from wireline.cli.parser import _parser
from wireline.tls import SslContext

ROOT = Path(__file__).resolve().parent.parent

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PRINTS = re.compile(r"^#> ?(.*)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")

_CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_MAKES_FILES = re.compile(r"^((?:openssl|\(umask) (?:.*\\\n)*.*)$", re.MULTILINE)
_FIRST_PAGES = ("README.md", "docs/index.md")

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
PROGRAMS = [page for page in PAGES if _BLOCK.search(page.read_text(encoding="utf-8"))]
CAN_PSK = all(each.available for each in SslContext.available_features() if "pre-shared" in each.name)


def name_of_page(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PROGRAMS, ids=name_of_page)
def test_the_programs_of_a_page_print_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The blocks of a page are one program, each continues the one before. It runs where its commands have been."""
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    if "_get_psk" in text and not CAN_PSK:
        pytest.skip("no pre-shared keys in this Python")
    for command in _MAKES_FILES.findall(text):
        require_tool("openssl", "openssl")
        subprocess.run(["sh", "-c", command], capture_output=True, timeout=20, check=True)
    blocks = list(_BLOCK.finditer(text))
    expected = [line for block in blocks for line in _PRINTS.findall(block[1])]
    assert expected, f"{page.name} has no program"
    if any(_NEEDS_A_PROCESS.search(block[1]) for block in blocks):
        if os.name != "posix":
            pytest.skip("it takes forks, or signals")
        printed = run_by_itself(page, tmp_path)
    else:
        namespace: dict[str, object] = {"__name__": "__main__"}
        for block in blocks:
            # As many newlines as there are above it, so that a traceback names the page's own line.
            source = "\n" * text.count("\n", 0, block.start(1)) + block[1]
            exec(compile(source, name_of_page(page), "exec"), namespace)
        printed = capsys.readouterr().out
    assert printed.splitlines() == expected


# A process of its own: a signal handler is one of the whole process, and a child of pytest would inherit its state.
_NEEDS_A_PROCESS = re.compile(r"\b(?:os\.fork|signal\.signal|multiprocessing)\b")


def run_by_itself(page: Path, directory: Path) -> str:
    """Run the blocks of a page as a program, each on the lines that it has on the page; return the output."""
    text = page.read_text(encoding="utf-8")
    source, end = "", 0
    for block in _BLOCK.finditer(text):
        source += "\n" * text.count("\n", end, block.start(1)) + block[1]
        end = block.end(1)
    program = directory / f"{page.stem}.py"
    program.write_text(source, encoding="utf-8")
    # Files and no pipes: a child that the program has left behind keeps a pipe open.
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as errors:
        ran = subprocess.Popen(
            [sys.executable, "-W", "error", str(program)],
            stdout=printed,
            stderr=errors,
            start_new_session=True,
        )
        try:
            code = ran.wait(30)
        finally:
            # The children, too; there is no such group if all of them have ended, as they should.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(ran.pid, signal.SIGKILL)
            ran.wait()
        printed.seek(0)
        errors.seek(0)
        assert (code, errors.read()) == (0, "")
        return printed.read()


def test_the_example_of_the_fixtures_is_a_test_that_passes(tmp_path: Path) -> None:
    """Above it is only defined. Here pytest runs it, after the blocks that it uses."""
    text = (ROOT / "docs/testing.md").read_text(encoding="utf-8")
    blocks = [block[1] for block in _BLOCK.finditer(text)]
    used = [
        block
        for block in blocks
        if "def library" in block or "def fetch_exactly" in block or "pytest" in block
    ]
    program = "\n".join(block.partition("\nwith serve(")[0] for block in used)
    (tmp_path / "test_example.py").write_text(program, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(
        'pytest_plugins = ["wireline.testing.pytest_plugin"]', encoding="utf-8"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        tmp_path,
        tmp_path,
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=40, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "5 passed" in ran.stdout


# ------------------------------------------------------------------------------------------ names of other projects


def entries(project: str) -> list[tuple[str, str]]:
    """The names of an inventory, with the page that each is on."""
    text = (ROOT / f"docs/inventories/{project}.inv").read_text(encoding="utf-8")
    head, *lines = text.removeprefix("# Sphinx inventory version 1\n").splitlines()[1:]
    assert head.startswith("# Version: ")
    return [(name, page) for name, _, page in map(str.split, lines)]


@in_turn("project", ["python", "trio"])
def test_the_names_that_signatures_link_to_exist(project: str) -> None:
    """The inventories are written by hand, because a build of the documentation needs no network."""
    for name, page in entries(project):
        module, _, attribute = name.rpartition(".")
        if project == "python" and page == f"library/{name}.html":
            importlib.import_module(name)
        else:
            assert hasattr(importlib.import_module(module or "builtins"), attribute) or name == "None", name
        if project == "python" and module:
            assert page.startswith((f"library/{module}.html", f"library/{module}-")), name


# ---------------------------------------------------------------------------------- programs that could escape

_FENCE = re.compile(r"^([ >]*)(```+|~~~+)(.*)$", re.MULTILINE)
_CHECKED = {"python", "sh", "json"}  # json is the schema of `check`, in tests/cli
_NO_PROGRAMS = {"{toctree}", "{eval-rst}", "{py:module}", "{image}", "{include}"}
# A decision keeps the programs of its time, as they were.
_LASTING = [page for page in PAGES if page.parent.name != "decisions"]


def test_no_block_of_a_page_escapes_the_tests() -> None:
    """Every block is of a kind that something here looks at, and is written as it is looked for."""
    for page in _LASTING:
        text = page.read_text(encoding="utf-8")
        for indent, fence, _ in _FENCE.findall(text):
            assert (indent, fence) == ("", "```"), f"{page}: no test finds this fence"
        for block in _CODE.findall(text):
            kind, _, rest = block.removeprefix("```").partition("\n")[0].partition(" ")
            if kind:
                known = (kind in _CHECKED and not rest) or kind in _NO_PROGRAMS
                assert known, f"{page}: nothing runs {kind!r}"
            else:
                assert re.search("[─│]", block), f"{page}: a block that is no drawing has no language"
        assert len(_BLOCK.findall(text)) == text.count("```python"), page
        prose = _CODE.sub("", text)
        assert ">>>" not in prose, page
        assert "code-block::" not in text, page
    assert not re.search(r"\n\n(?: {4}|\t)(?:async |def |from |import |with )", prose)


def test_a_docstring_has_no_program_that_nothing_runs() -> None:
    assert [each.name for each in PUBLIC if re.search(r">>>|```|code-block::|::\n\n", each.text or "")] == []


_SHELL = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`((?:make|wireline) [^`]* [^`]*)`(?!`)")
_STAND_FOR = {"HOST:PORT": "localhost:9000"}


def typed(page: Path, program: str) -> list[list[str]]:
    """The words after a program's name, wherever a page tells to type them."""
    if page.name == "messages.md":
        return []  # sentences, some of which begin with the name of a program
    text = page.read_text(encoding="utf-8")
    if page.name == "from-netcat.md":
        text = re.sub(
            r"^\|.*", "", text, flags=re.MULTILINE
        )  # tests/cli/test_tasks.py runs what is in the tables
    lines = "\n".join(_SHELL.findall(text)).replace("\\\n", " ").splitlines()
    found: list[list[str]] = []
    for line in [*lines, *_INLINE.findall(_CODE.sub("", text))]:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|>;&")
        lexer.whitespace_split = True
        for part in re.split(r"\0[|>;&]+\0", "\0".join(lexer)):
            first, *words = part.split("\0")
            if first == program and words:
                found.append([_STAND_FOR.get(word, word) for word in words])
    return found


def test_the_command_accepts_the_command_lines_of_the_pages() -> None:
    for where, words in [(name_of_page(page), words) for page in PAGES for words in typed(page, "wireline")]:
        try:
            _parser.parse(words)
        except SystemExit as end:
            pytest.fail(f"{where}: wireline {shlex.join(words)}: exit code {end.code}")


def test_make_has_the_targets_of_the_pages_and_finds_the_tests() -> None:
    targets = re.findall(r"^([a-z-]+):.* ## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for where, (target, *variables) in [
        (name_of_page(page), words) for page in PAGES for words in typed(page, "make")
    ]:
        assert target in targets, where
        for files, word in re.findall(r"ARGS=(\S*) ?-k (\w+)", " ".join(variables)):
            tests = (ROOT / (files or "tests")).glob("**/test_*.py")
            names = [name for file in tests for name in _TEST.findall(file.read_text(encoding="utf-8"))]
            assert any(word in name for name in names), f"no test in {files} has {word} in its name"


@in_turn(
    "sought, page",
    [
        ("timeout", "howto/timeouts.md"),
        ("half close", "faq.md"),
        ("STARTTLS", "howto/tls.md"),
        ("certificate verify failed", "faq.md"),
        ("CERTIFICATE_VERIFY_FAILED", "faq.md"),
        ("connection reset by peer", "faq.md"),
        ("address already in use", "faq.md"),
        ("too many open files", "faq.md"),
        ("close_notify", "howto/tls.md"),
        ("Wireshark", "howto/debugging.md"),
    ],
)
def test_the_words_that_users_search_for_are_on_the_page_that_answers(sought: str, page: str) -> None:
    """The search of the documentation finds the pages that have all words, in any order and case."""
    words = set(re.findall(r"\w+", (ROOT / "docs" / page).read_text(encoding="utf-8").lower()))
    assert set(re.findall(r"\w+", sought.lower())) <= words


# ------------------------------------------------------------------------------------------------ the map of the code

MAP = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


@in_turn("package", ["_core", "_os", "net", "asyncnet", "tls"])
def test_the_map_names_every_module_and_no_other(package: str) -> None:
    (row,) = re.findall(rf"^\| `{package}` \| (.*) \|$", MAP, re.MULTILINE)
    there = {file.stem for file in (ROOT / "src/wireline" / package).glob("*.py")} - {"__init__"}
    # Underscores and small letters are the form of a module; the names of other things are explained in parentheses.
    named = set(re.findall(r"`(_?[a-z0-9_]+)`", re.sub(r"\([^()]*\)", "", row)))
    assert there <= named
    assert named - there <= {"_fd_guard", "ctypes", "ssl"}


def test_the_layers_of_the_map_are_those_that_are_enforced() -> None:
    drawn = [
        set(re.findall(r"\w+", re.split(r"\s{3,}", line.strip())[0]))
        for line in MAP.partition("```\n")[2].partition("```")[0].splitlines()
    ]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    enforced = [set(layer.replace(" ", "").split("|")) for layer in contracts[0]["layers"]]
    assert drawn == enforced[1:]  # `__main__` is above all


# ------------------------------------------------------------------------------------------------ the same thing twice


def test_the_first_programs_are_the_same_in_the_readme_and_on_the_landing_page() -> None:
    readme, landing = (_BLOCK.findall((ROOT / page).read_text(encoding="utf-8")) for page in _FIRST_PAGES)
    assert len(readme) == 4
    assert readme == landing


def test_the_six_situations_are_the_same_on_the_first_pages_and_in_the_comparison() -> None:
    pages = (*_FIRST_PAGES, "docs/explanation/comparison.md")
    head = r"^\| \| `socket`, `ssl` \| asyncio streams \| wireline \|\n((?:\|.*\n)+)"
    tables = {re.findall(head, (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)[0] for page in pages}
    assert [table.count("\n") for table in tables] == [7]


def test_every_row_of_the_comparison_has_a_number() -> None:
    text = (ROOT / "docs/explanation/comparison.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\d+)\. ", text, re.MULTILINE) == [str(n) for n in range(1, 18)]


def test_the_two_flavours_of_a_program_differ_only_in_the_waiting() -> None:
    """Line by line, and the async one needs asyncio."""
    blocking, awaited = _BLOCK.findall((ROOT / "docs/index.md").read_text(encoding="utf-8"))[2:4]
    awaited = re.sub(
        r"\b(?:async|await) |^import asyncio\n|\basyncio\.run\((.*)\)", r"\1", awaited, flags=re.M
    )
    assert awaited.replace("asyncnet", "net") == blocking


MODULES = {
    "wireline": "docs/reference/wireline.md",
    "wireline.net": "docs/reference/net.md",
    "wireline.asyncnet": "docs/reference/asyncnet.md",
    "wireline.tls": "docs/reference/tls.md",
    "wireline.testing": "docs/reference/testing.md",
}
CLASSES = [net.Socket, net.Server, asyncnet.AsyncSocket, asyncnet.Server, tls.SslContext, tls.SessionCache]
CLASSES += [net.Pool, asyncnet.Pool, testing.StreamRelay, testing.TestCA]


def name_of(subject: type) -> str:
    return f"{subject.__module__}.{subject.__qualname__}"


@in_turn("module, page", MODULES.items())
def test_the_reference_has_every_public_name_and_no_other(module: str, page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    documented: list[str] = []
    for entry in re.finditer(r"^\.\. (?:auto\w+|py:\w+):: (\w+(?:\n {13}\w+)*)$", text, re.MULTILINE):
        documented += entry[1].split()
    assert sorted(documented) == sorted(importlib.import_module(module).__all__)


@in_turn("subject", CLASSES)
def test_the_reference_has_every_method_and_no_other(subject: type) -> None:
    text = (ROOT / MODULES[subject.__module__]).read_text(encoding="utf-8")
    inside = re.search(rf"^\.\. autoclass:: {subject.__name__}$(.*?)^(?=\S)", text, re.DOTALL | re.MULTILINE)
    assert inside is not None
    documented = re.findall(r"^   \.\. auto\w+:: (\w+)$", inside[1], re.MULTILINE)
    documented += re.findall(rf"^\.\. auto\w+:: {subject.__name__}\.(\w+)$", text, re.MULTILINE)
    public = {name for base in subject.__mro__[:-1] for name in [*vars(base), *inspect.get_annotations(base)]}
    assert sorted(documented) == sorted(name for name in public if not name.startswith("_"))


CALLABLES = [*CLASSES, net.dial, net.serve, asyncnet.dial, asyncnet.serve]


@in_turn("subject", CALLABLES)
def test_everything_that_can_be_called_has_a_docstring(subject: object) -> None:
    assert inspect.getdoc(subject)
    public = [name for name in dir(subject) if not name.startswith("_")]
    assert [name for name in public if not inspect.getdoc(getattr(subject, name))] == []


def test_the_page_of_the_command_has_every_option_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs/reference/command.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^(?:\| )?`(--[a-z-]+)", text, re.MULTILINE))
    offered = set()
    for command in re.findall(r"^## wireline (\w+)", text, re.MULTILINE):
        with pytest.raises(SystemExit):
            _parser.parse([command, "--help"])
        offered |= set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    assert documented == offered - {"--help"}


def anchors_of(page: Path) -> set[str]:
    """The valid targets of a link after the hash: the headings, as GitHub and MyST spell them, and explicit labels."""
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    spelled = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return spelled | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


def test_links_between_pages_lead_somewhere() -> None:
    astray = []
    for page in PAGES:
        for link, anchor in _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8"))):
            if "://" not in link:
                there = page.parent / link if link else page
                if not there.exists() or (anchor and anchor not in anchors_of(there)):
                    astray.append(f"{name_of_page(page)}: {link}#{anchor}")
    assert astray == []


def test_the_page_of_the_examples_has_every_program() -> None:
    linked = _LINK.findall((ROOT / "examples/README.md").read_text(encoding="utf-8"))
    programs = {path.name for path in ROOT.glob("examples/*.py")}
    assert {link for link, _ in linked if link.endswith(".py")} == programs


def test_every_diagram_is_on_a_page_and_says_what_it_shows() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    diagrams = sorted(ROOT.glob("docs/_static/diagrams/*.svg"))
    assert diagrams
    for diagram in diagrams:
        assert f"_static/diagrams/{diagram.name})" in pages
        root = ElementTree.parse(diagram).getroot()
        assert root.findtext("{http://www.w3.org/2000/svg}title"), (
            f"{diagram.name} says nothing to a reader who cannot see it"
        )


# ------------------------------------------------------------------------------------------------------- promises

PROMISES = {"R": 17, "W": 11, "C": 8, "S": 10, "T": 13, "A": 4, "P": 8, "D": 1, "F": 1}
"""How many there are of each kind."""

NUMBERS = [f"{kind}{number}" for kind, count in PROMISES.items() for number in range(1, count + 1)]

_PROMISE = re.compile(
    r"^\| (?:<a[^>]*></a>)?([A-Z]\d+) \|.*\| `(test_\w+)` in `(tests/[\w/]+\.py)` \|$", re.MULTILINE
)
_TEST = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)


def named_after(number: str) -> list[str]:
    """Every test that is named after a promise, as file and name."""
    named = re.compile(rf"test_(?:[A-Z]\d+_)*{number}_")
    return [
        f"{name} in {file.relative_to(ROOT)}"
        for file in sorted(ROOT.glob("tests/**/test_*.py"))
        for name in _TEST.findall(file.read_text(encoding="utf-8"))
        if named.match(name)
    ]


def test_the_page_of_the_promises_has_every_number_once() -> None:
    text = (ROOT / "docs/explanation/promises.md").read_text(encoding="utf-8")
    assert [number for number, _, _ in _PROMISE.findall(text)] == NUMBERS


def test_a_promise_has_a_test_that_is_named_after_it_and_the_page_names_it() -> None:
    text = (ROOT / "docs/explanation/promises.md").read_text(encoding="utf-8")
    shown = {promise: f"{name} in {file}" for promise, name, file in _PROMISE.findall(text)}
    assert {number for number in NUMBERS if shown.get(number) not in named_after(number)} == set()


# ------------------------------------------------------------------------------------------------------ the other names

_FAMILIAR = re.compile(r"^\| `[^|]*\| (`[^|]*) \|", re.MULTILINE)
_NAME = re.compile(r"`(?:await )?([A-Za-z_][\w.]*)(?![\w.=])")
_LOOKED_UP_IN = (
    builtins,
    wireline,
    net,
    asyncnet,
    tls,
    net.Socket,
    asyncnet.AsyncSocket,
    tls.SslContext,
    net.Server,
)


@in_turn("page", ["from-nim.md", "from-socket.md", "from-asyncio-streams.md"])
def test_every_name_that_a_page_translates_to_is_there(page: str) -> None:
    """The second column of a table whose first is a name of another library."""
    text = (ROOT / "docs/howto" / page).read_text(encoding="utf-8")
    named = {name for cell in _FAMILIAR.findall(text) for name in _NAME.findall(cell)}
    assert len(named) > 5
    missing = [name for name in sorted(named) if not any(is_in(place, name) for place in _LOOKED_UP_IN)]
    assert missing == []


def test_every_name_of_the_cheat_sheet_is_there() -> None:
    """The column of this library, in the tables that have one."""
    named: set[str] = set()
    column = None
    for line in (ROOT / "docs/cheatsheet.md").read_text(encoding="utf-8").splitlines():
        cells = line.split("|")[1:-1]
        if [each.strip() for each in cells].count("wireline"):
            column = [each.strip() for each in cells].index("wireline")
        elif cells and column is not None:
            named |= set(_NAME.findall(cells[column]))
        else:
            column = None
    named -= {"limit", "timeout", "for"}
    assert len(named) > 30
    places = (*_LOOKED_UP_IN, testing)
    assert [name for name in sorted(named) if not any(is_in(place, name) for place in places)] == []


def is_in(place: object, name: str) -> bool:
    for variable in ("sock.", "ctx.", "server.", "wireline.tls.", "wireline.testing.", "wireline."):
        name = name.removeprefix(variable)
    try:
        operator.attrgetter(name)(place)
    except AttributeError:
        return False
    return True


# The exports of std/net and std/asyncnet of Nim 2.2, and the names of their enumerations.
_NIM = """
    $ == &= AF_INET AF_INET6 AF_UNIX AcceptNoClient AcceptNoHandshake AcceptSuccess AsyncSocket
    AsyncSocketDesc BufferSize CVerifyNone CVerifyPeer CVerifyPeerUseEnvVars Certificate CiphersIntermediate
    CiphersModern Domain IPPROTO_TCP IPPROTO_UDP IPv4_any IPv4_broadcast IPv4_loopback IPv6_any
    IPv6_loopback IpAddress IpAddressFamily MaxLineLength OptAcceptConn OptBroadcast OptDebug OptDontRoute
    OptKeepAlive OptNoDelay OptOOBInline OptReuseAddr OptReusePort Peek Port Protocol ReadDisconnected
    ReadFullLine ReadLineResult ReadNone ReadPartialLine SOBool SOCK_DGRAM SOCK_STREAM SafeDisconn SockType
    Socket SocketFlag SocketImpl SslAcceptResult SslCVerifyMode SslClientGetPskFunc SslContext SslError
    SslHandshakeType SslProtVersion SslServerGetPskFunc TimeoutError accept acceptAddr address_v4 address_v6
    bindAddr bindUnix clientGetPskFunc close connect connectUnix context destroyContext dial family
    fromSockAddr getExtraData getFd getLocalAddr getPeerAddr getPeerCertificates getPrimaryIPAddr
    getPskIdentity getSockOpt getSocketError gotHandshake handshakeAsClient handshakeAsServer
    hasDataBuffered isClosed isDisconnectionError isIpAddress isSsl listen newAsyncSocket newContext
    newSocket parseIpAddress protSSLv2 protSSLv23 protSSLv3 protTLSv1 pskIdentityHint raiseSSLError readLine
    recv recvFrom recvInto recvLine recvLineInto send sendTo serverGetPskFunc sessionIdContext setExtraData
    setSockOpt skip socketError sslHandle toCInt toOSFlags toSockAddr trySend wrapConnectedSocket wrapSocket
""".split()


def test_the_page_for_nim_has_every_name_of_the_two_modules() -> None:
    text = (ROOT / "docs/howto/from-nim.md").read_text(encoding="utf-8")
    tables = text.partition("## Differences")[0]
    cells = " ".join(re.findall(r"^\| ([^|]*) \|", tables, re.MULTILINE))
    named = set(re.findall(r"\w+|&=|==|\$", cells))
    assert [name for name in _NIM if name not in named] == []
