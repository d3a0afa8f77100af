"""The catalogue of the command's messages, ``docs/reference/messages.md``.

    python tools/messages.py --record   run the tests of the command, keep what they printed, and write the page;
                                        with paths of tests, run those, and keep what others printed before
    python tools/messages.py            write the page again, without the tests
    python tools/messages.py --check    exit with 1 if the page is not the one that would be written

Three things make the page. The *texts* are in the source: each string of at least two words in the code that prints or
raises, with capitals in place of what varies. What the tests *print* gives each text its exit codes and an example; it
is kept in ``tools/messages.json``. The *notes* in ``tools/messages.toml`` say what to do where a text does not.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "wireline"
PAGE = ROOT / "docs" / "reference" / "messages.md"
PRINTED = ROOT / "tools" / "messages.json"
NOTES = ROOT / "tools" / "messages.toml"

TESTS = ("tests/cli", "tests/tls/test_awkward_files.py", "--ignore=tests/cli/test_messages.py")
"""The tests that run the command, without that of the page itself."""

LIBRARY = (
    "_targets.py",
    "testing/_faults.py",
    "tls/_credentials.py",
    "tls/_keylog.py",
    "tls/_pem.py",
)
"""The files of the library whose errors the command passes on as they are."""

NO_MESSAGES = (
    "cli/completion/",
    "cli/show_code/",
    "cli/_dump.py",
    "cli/_progress.py",
    "cli/_relay_stats.py",
    "cli/_self_signed.py",
    "cli/check/_certificate_info.py",
    "cli/check/_handshake_observer.py",
    "cli/check/_monitoring.py",
    "cli/check/_plain_text.py",
    "cli/check/_report.py",
    "cli/check/_tables.py",
    "cli/twin/_docstrings.py",
    "cli/twin/_header.py",
    "cli/twin/_imports.py",
)
"""Files and directories whose strings are programs, reports or names, and no messages."""

SECTIONS = {
    "Wrong usage": ("cli/parser/", "_targets.py", "testing/_faults.py", "argparse"),
    "Connections, input and output": ("cli/_",),
    "TLS": ("cli/_tls_", "cli/_verbose.py"),
    "Files of certificates, keys and passwords": ("cli/_psk_files.py", "cli/_secrets.py", "tls/"),
    "STARTTLS": ("cli/starttls/",),
    "wireline check": ("cli/check/",),
    "wireline twin": ("cli/twin/",),
}
"""The sections of the page, and the beginnings of the paths of their texts; the longest that fits counts."""

ARGPARSE = (
    "NAME: invalid choice: VALUE (choose from CHOICES)",
    "NAME: expected one argument",
    "NAME: not allowed with argument OTHER",
    "NAME: ignored explicit argument VALUE",
    "the following arguments are required: NAMES",
    "unrecognized arguments: WORDS",
)
"""The texts of ``argparse``."""

_NOT_A_TEXT = re.compile(
    r"xmlns| \| |[%\\^$]|^\W*$|^(?:import|from) |Callable|float \| None|_PORT|\bpip install\b.{0,1}$"
)
_HELP = re.compile(r"HELP|SUMMARY|ABOUT|EXAMPLES|EXIT_CODES|_SERVICES|_LONG|_RENAMED|_DIALOGUES")
"""Names of constants that are help texts, or tables without texts."""

_NAMES = {
    "subject": "PEER",
    "words": "REASON",
    "error": "REASON",
    "cause": "REASON",
    "reason": "REASON",
    "problem": "REASON",
    "sentence": "REASON",
    "advice": "ADVICE",
    "path": "FILE",
    "filename": "FILE",
    "cert": "FILE",
    "key": "FILE",
    "source": "FILE",
    "name": "NAME",
    "option": "OPTION",
    "ca_option": "OPTION",
}
"""What stands for a value on the page, where its own name in capitals would not do."""


class Text(NamedTuple):
    """A text of the source.

    Attributes:
        template: with capitals in place of what varies.
        pattern: matches it in what was printed.
        section: of the page.
    """

    template: str
    pattern: re.Pattern[str]
    section: str


def settings() -> dict[str, Any]:
    """The file of notes."""
    return tomllib.loads(NOTES.read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------------------- the source


def texts() -> list[Text]:
    """The texts of the page, in its order."""
    ignored = settings()["ignored"]
    return sorted(
        (text for text in all_texts().values() if text.template not in ignored),
        key=lambda text: (list(SECTIONS).index(text.section), text.template.lower()),
    )


def all_texts() -> dict[str, Text]:
    """The texts of the source by their templates, with those that are parts of others."""
    found: dict[str, Text] = {}
    files = [*sorted(SOURCE.glob("cli/**/*.py")), *(SOURCE / name for name in LIBRARY)]
    for file in files:
        name = file.relative_to(SOURCE).as_posix()
        if not name.startswith(NO_MESSAGES):
            for template, pattern in texts_of(ast.parse(file.read_text(encoding="utf-8")), name):
                found.setdefault(template, Text(template, re.compile(pattern, re.DOTALL), section_of(name)))
    for template in ARGPARSE:
        pattern = re.sub(r"\b[A-Z]{4,}\b", ".+?", re.escape(template))
        found[template] = Text(template, re.compile(pattern), section_of("argparse"))
    return found


def section_of(file: str) -> str:
    """The section of the texts of a file."""
    fits = [
        (len(each), title) for title, begins in SECTIONS.items() for each in begins if file.startswith(each)
    ]
    return max(fits)[1]


def texts_of(tree: ast.Module, file: str) -> Iterator[tuple[str, str]]:
    """Template and pattern of each text of a file."""
    for node in strings(tree, in_parser=file.startswith("cli/parser/")):
        parts = list(parts_of(node))
        constant = "".join(part for part, is_constant in parts if is_constant)
        if (
            len(re.findall(r"[a-z]{2,}", constant)) < 2
            or " " not in constant.strip()
            or _NOT_A_TEXT.search(constant)
        ):
            continue
        template = joined(parts).strip().removeprefix("wireline: ").strip("; ")
        if file == "testing/_faults.py":
            template = re.sub("FILE|NAME", "WORD", template)  # a word of `--fault`
        pattern = "".join(re.escape(part) if is_constant else ".*?" for part, is_constant in parts)
        yield template, pattern


def joined(parts: list[tuple[str, bool]]) -> str:
    """The template of parts; a blank keeps placeholders apart from words."""
    text = ""
    for part, _ in parts:
        is_apart = not (re.search(r"\w$", text) and re.match(r"\w", part))
        text += part if is_apart else f" {part}"
    return text


def strings(tree: ast.Module, *, in_parser: bool) -> Iterator[ast.expr]:
    """The strings that may be texts: no docstrings, no help, no parts of other strings."""

    def visit(node: ast.AST) -> Iterator[ast.expr]:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring
        if isinstance(node, ast.Assign | ast.AnnAssign) and is_help(node):
            return
        if in_parser and isinstance(node, ast.Call) and is_declaration(node):
            return
        if isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.Constant) and isinstance(node.value, str)
        ):
            yield node
            for inner in ast.walk(node):
                # `f"{x or 'a text'}"`; a format has strings of its own.
                if isinstance(inner, ast.IfExp | ast.BoolOp):
                    for child in ast.iter_child_nodes(inner):
                        yield from visit(child)
            return
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    return visit(tree)


def is_help(node: ast.Assign | ast.AnnAssign) -> bool:
    """Whether an assignment is to a name of a help text."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(target, ast.Name) and _HELP.search(target.id) for target in targets)


def is_declaration(node: ast.Call) -> bool:
    """Whether a call declares an option, so that its strings are help."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name.lstrip("_").startswith(("add", "describe", "set_defaults"))


def parts_of(node: ast.expr) -> Iterator[tuple[str, bool]]:
    """The parts of a string, each with whether it is constant; a placeholder is the name of what varies."""
    if isinstance(node, ast.JoinedStr):
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                quote = "'" if value.conversion == ord("r") else ""
                yield f"{quote}{placeholder(value.value)}{quote}", False
            else:
                yield from parts_of(value)
    elif isinstance(node, ast.Constant):
        for index, part in enumerate(re.split(r"\{(\w*)[^{}]*\}", str(node.value))):
            yield (part, True) if index % 2 == 0 else (capitals(part), False)


def placeholder(node: ast.expr) -> str:
    """A name in capitals for the value of an expression."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return capitals(name)
        case ast.Call(func=ast.Name(id="len")) | ast.BinOp() | ast.Constant(value=int()):
            return "N"
        case ast.Call(func=ast.Attribute(value=inner, attr="replace" | "_replace")):
            return placeholder(inner)
        case ast.Call(args=[first, *_]):
            return placeholder(first)
        case ast.Call(func=ast.Attribute(value=inner)) | ast.Subscript(value=inner):
            return placeholder(inner)
        case ast.Call(func=function):
            return placeholder(function)
        case _:
            return "..."


def capitals(name: str) -> str:
    """A name of the code as a placeholder."""
    if not name:
        return "..."
    return _NAMES.get(name, name.strip("_").upper().replace("_", " ").rpartition(" ")[2])


# --------------------------------------------------------------------------------------------- what tests print


def record(tests: Sequence[str]) -> None:
    """Run some tests, or all, and keep the exit codes and an example of each text."""
    with tempfile.TemporaryDirectory() as directory:
        jobs = os.environ.get("WIRELINE_JOBS", "auto")
        words = [sys.executable, "-m", "pytest", "-q", "-n", jobs, "--timeout-method=thread"]
        ran = subprocess.run(
            [*words, "-p", "tests.cli.recorder", *(tests or TESTS)],
            cwd=ROOT,
            env={**os.environ, "WIRELINE_MESSAGES": directory},
        )
        lines = [line for file in Path(directory).iterdir() for line in file.read_text().splitlines()]
    printed = [json.loads(line) for line in lines]
    known = texts()
    kept = {text.template: summary for text in known if (summary := summarized(text, printed))}
    if ran.returncode:
        print("messages: some tests failed; what they have printed before is kept", file=sys.stderr)
    if ran.returncode or tests:
        earlier = json.loads(PRINTED.read_text(encoding="utf-8"))
        for template in earlier.keys() & {text.template for text in known}:
            kept[template] = merged(earlier[template], kept.get(template, earlier[template]))
    PRINTED.write_text(
        json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _by_plainness(example: str) -> tuple[bool, int, str]:
    return r"\x" in example, len(example), example


def merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What some tests printed, beside what all have printed before."""
    examples = sorted((before["example"], now["example"]), key=_by_plainness)
    return {"codes": sorted({*before["codes"], *now["codes"]}), "example": examples[0]}


def summarized(text: Text, printed: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The exit codes with which a text was printed, and the shortest example."""
    found = [each for each in printed if text.pattern.search(each["line"])]
    if not found:
        return None
    found = [{**each, "line": each["line"].removeprefix("wireline: ")} for each in found]
    codes = sorted({each["code"] for each in found if each["code"]})
    examples = sorted({masked(each["line"]) for each in found}, key=_by_plainness)
    return {"codes": codes, "example": examples[0]}


def masked(line: str) -> str:
    """A line without what differs at each run."""
    for pattern, replacement in (
        (r"/tmp/(?:[^/\s'\"]+/)*", ""),
        (r"(?<=[\w\]]):\d{4,5}\b", ":9000"),
        (r"@wl-\w+", "@name"),
        (r"SHA-256 [0-9a-f]{16}", "SHA-256 0123456789abcdef"),
        (r"#[\w-]{16}", "#1"),
        (r"\b20\d\d-\d\d-\d\d\b", "2026-01-31"),
        (r"sha256/[\w+/]{43}=", "sha256/..."),
        (r"\b\d+(\.\d+)? ms\b", "17 ms"),
    ):
        line = re.sub(pattern, replacement, line)
    return line


# ------------------------------------------------------------------------------------------------------ the page

_HEAD = """\
# Messages of the command

<!-- Made by `make messages`: edit tools/messages.toml. -->

Every message that `wireline` can print on standard error, after `wireline: `. Capitals stand for what varies: PEER is
the target or the client, FILE a path. REASON is another text of this page or an error of the system. `make messages`
collects the texts from the source, and the exit codes and examples from the tests, which make each message happen.

A message without an exit code does not end the command: it is about one connection of many, or a warning. OpenSSL's
own words, where a message has them, are in parentheses after what they mean.
"""


def page() -> str:
    """The page."""
    printed = json.loads(PRINTED.read_text(encoding="utf-8"))
    notes = settings()["notes"]
    parts = [_HEAD]
    section = ""
    for text in texts():
        if text.section != section:
            section = text.section
            parts.append(f"## {section}\n")
        note = notes.get(text.template) or unprinted_because(text)
        parts.append(entry(text, printed.get(text.template), note))
    return "\n".join(parts)


def unprinted_because(text: Text) -> str:
    """Why no test prints a text; ``""`` if some do."""
    reason = settings()["unprinted"].get(text.template)
    return f"No test of this page prints it: {reason}." if reason else ""


def entry(text: Text, printed: dict[str, Any] | None, note: str) -> str:
    """One message of the page."""
    codes = [str(code) for code in (printed or {}).get("codes", ())]
    lines = [f"Exit code {' or '.join(codes)}."] if codes else []
    lines += [note] if note else []
    example = (printed or {}).get("example", "")
    if example and re.search(r"\b(REASON|ADVICE)\b|\.\.\.", text.template):
        lines.append(f"Example: {code(example)}")
    return f"{code(text.template)}\n: {' '.join(lines) or 'A part of other messages.'}\n"


def code(text: str) -> str:
    """Text as code, whatever backquotes it has."""
    if "`" in text:
        return f"`` {text} ``"
    return f"`{text}`"


# ---------------------------------------------------------------------------------------------------- the measures

_ADVICE = re.compile(
    r"\b(?:write|use|give|check|start|wait|stop|name|install|rename|choose|compare|update|updated|renew|renewed|raise|"
    r"make|see|connect|save|put|append|run|remove|move|add|adds|needs?|requires?|must|decrypt|convert(?:s)?|take(?:s)?|"
    r"unpack|mark|only|belongs?|await|instead|at most|at least|from \d|is not|are not|has no|have no|one of|trust"
    r"|supports?|is for|are for|between|such as|lower|send|listen|pass|edit|set|do)\b|\bfd:N\b"
)
"""Words with which a text says what to do."""


def unexplained() -> list[str]:
    """The texts that neither say what to do nor have a note."""
    notes = settings()["notes"]
    return [
        text.template for text in texts() if text.template not in notes and not _ADVICE.search(text.template)
    ]


def unprinted() -> list[str]:
    """The texts that no test makes the command print, without those that have a reason."""
    printed = json.loads(PRINTED.read_text(encoding="utf-8"))
    known = printed.keys() | settings()["unprinted"].keys()
    return [text.template for text in texts() if text.template not in known]


def stale() -> list[str]:
    """The notes and reasons for texts that are gone."""
    notes = settings()
    named = notes["notes"].keys() | notes["unprinted"].keys()
    return sorted(
        (named - {text.template for text in texts()}) | (set(notes["ignored"]) - all_texts().keys())
    )


def report(title: str, found: Callable[[], Iterable[str]]) -> None:
    """Print what a measure has found."""
    for template in found():
        print(f"messages: {title}: {template}", file=sys.stderr)


def main(words: list[str]) -> int:
    """Do what the words say."""
    if "--record" in words:
        record([word for word in words if not word.startswith("--")])
    made = page()
    if "--check" in words:
        return int(made != PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(made, encoding="utf-8")
    report("no test prints", unprinted)
    report("neither the text nor tools/messages.toml says what to do", unexplained)
    report("tools/messages.toml names a text that is gone", stale)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
