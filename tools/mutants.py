"""Change the source in one small way at a time, and see whether a test notices.

    python tools/mutants.py map                 run all tests once, and note which lines each of them runs; the sample
                                                is enough (--sample), for another variant runs the same lines
    python tools/mutants.py run --count 500     make mutants, and run against each the tests that run its line;
                                                with --sample only those of `make test`, the others in a later run
    python tools/mutants.py show                print those that no test notices, or only the full suite

The mutants are the same for the same source and ``--seed``. Each is tried in a copy of the tree, with the tests of
``make test`` first and with the others of ``make test-all`` only if none of those fails. A test that fails is run again
before the mutant counts as killed, because a busy machine fails tests, too. The results are kept in a directory
(``--directory``, by default ``.mutants``), so a run that was ended continues there.

A survivor is not always a hole. Some change nothing but the speed or code for another platform. And the map does not
show which tests run a line in a process that they start: try those of ``tests/net``, ``tests/asyncnet`` and
``tests/faults`` before you write a new one. The sample has one loop of each test of ``asyncnet``, which may be one that
does not run the line. ``tools/mutants-known.txt`` has the mutants that stay, with the reasons.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import itertools
import json
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCE = Path("src/wireline")

TARGETS = (
    "_core/*.py",
    "net/_socket.py",
    "net/*stream*.py",
    "net/*guard*.py",
    "net/*lock*.py",
    "asyncnet/_socket.py",
    "asyncnet/*stream*.py",
    "asyncnet/*fd_on_loop*.py",
    "tls/*.py",
)
"""Which files are changed: the core, the sockets and their streams, the guards of a descriptor, and TLS."""

LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "_build", "build", "dist", "htmlcov")
"""Files that a copy of the tree does not need."""

AT_FIRST = 60
"""Tests that are run first, from as many files as there are: most mutants do not survive them."""

TEST_TIMEOUT = 40
"""Seconds for one test. A mutant that waits forever is killed by it; few of the tests take that long by themselves."""

ALL_TIMEOUT = 1800
"""Seconds for all tests of one mutant."""

# ------------------------------------------------------------------------------------------------- the mutants

COMPARISONS = {
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
ARITHMETIC = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "//",
    ast.FloorDiv: "*",
    ast.Div: "*",
    ast.Mod: "*",
    ast.BitAnd: "|",
    ast.BitOr: "&",
    ast.LShift: ">>",
    ast.RShift: "<<",
}
REMOVABLE = (ast.Expr, ast.Assign, ast.AugAssign, ast.Raise, ast.Delete)


class Mutant(NamedTuple):
    """One change: the text between two positions of a file is replaced."""

    file: str
    line: int
    kind: str
    start: int
    end: int
    text: str

    @property
    def key(self) -> str:
        return f"{self.file}:{self.line} {self.kind} {self.start}-{self.end} {self.text}"

    def applied(self, source: bytes) -> bytes:
        """The source with the change."""
        return source[: self.start] + self.text.encode() + source[self.end :]


class Maker(ast.NodeVisitor):
    """Finds every change that can be made to a file."""

    def __init__(self, file: str, source: bytes) -> None:
        self.file = file
        self.source = source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.found: list[Mutant] = []
        self.visit(ast.parse(source))

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        end_line, end_column = (
            node.end_lineno or 0,
            node.end_col_offset or 0,
        )  # both are set in a parsed tree
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[end_line - 1] + end_column

    def _text(self, node: ast.expr | ast.stmt) -> str:
        start, end = self._span(node)
        return self.source[start:end].decode()

    def _add(self, kind: str, node: ast.expr | ast.stmt, text: str) -> None:
        start, end = self._span(node)
        self.found.append(Mutant(self.file, node.lineno, kind, start, end, text))

    def _between(self, kind: str, left: ast.expr, right: ast.expr, text: str) -> None:
        """Replace the operator between two operands; brackets around them stay."""
        (_, start), (end, _) = self._span(left), self._span(right)
        between = re.sub("#[^\n]*", lambda comment: " " * len(comment[0]), self.source[start:end].decode())
        operator = re.search(r"not\s+in|is\s+not|\bis\b|\bin\b|\band\b|\bor\b|[-+*/%&|<>=!]+", between)
        assert operator is not None
        start, end = (
            start + len(between[: operator.start()].encode()),
            start + len(between[: operator.end()].encode()),
        )
        self.found.append(Mutant(self.file, left.end_lineno or left.lineno, kind, start, end, text))

    # Nodes that are changed.

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, operator, right in zip(
            [node.left, *node.comparators], node.ops, node.comparators, strict=False
        ):
            self._between("compare", left, right, COMPARISONS[type(operator)])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between("boolean", left, right, "or" if isinstance(node.op, ast.And) else "and")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in ARITHMETIC and not isinstance(node.left, ast.Constant | ast.JoinedStr):
            self._between("arithmetic", node.left, node.right, ARITHMETIC[type(node.op)])
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._add("not", node, f"({self._text(node.operand)})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._add("constant", node, str(not node.value))
        elif isinstance(node.value, int):
            self._add("constant", node, f"({self._text(node)} + 1)")
        elif isinstance(node.value, bytes):
            self._add("constant", node, repr(node.value + b"X"))

    def visit_If(self, node: ast.If | ast.While | ast.IfExp) -> None:
        is_not = isinstance(node.test, ast.UnaryOp) and isinstance(node.test.op, ast.Not)
        if not (is_not or isinstance(node.test, ast.Compare | ast.Constant)):  # these have a mutant already
            self._add("branch", node.test, f"(not ({self._text(node.test)}))")
        self.generic_visit(node)

    visit_While = visit_IfExp = visit_If

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not isinstance(node.value, ast.Constant):
            self._add("return", node, "return None")
        self.generic_visit(node)

    def visit_Break(self, node: ast.Break) -> None:
        self._add("loop", node, "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._add("loop", node, "break")

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, REMOVABLE) and self._may_go(node):
            self._add("statement", node, "pass")
        super().generic_visit(node)

    def _may_go(self, node: ast.stmt) -> bool:
        """Whether a statement does something: a docstring does not, and without a name nothing after it would run."""
        if isinstance(node, ast.Expr):
            return not isinstance(node.value, ast.Constant)
        if isinstance(node, ast.Assign):
            return not any(isinstance(target, ast.Name) for target in node.targets)
        return True

    # Nodes that are left alone: types, and code for type checkers.

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for each in [*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body]:
            self.visit(each)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if not any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases):
            for each in node.body:
                self.visit(each)

    def visit_TypeAlias(self, node: ast.AST) -> None: ...

    visit_Import = visit_ImportFrom = visit_Assert = visit_JoinedStr = visit_TypeAlias


def mutants_of(root: Path) -> list[Mutant]:
    """Every mutant of the targets, in the order of the source."""
    found: list[Mutant] = []
    for pattern in TARGETS:
        files = sorted((root / SOURCE).glob(pattern))
        if not files:
            sys.exit(f"mutants: no file of {SOURCE} is {pattern}: put its new name into TARGETS")
        for file in files:
            made = Maker(str(file.relative_to(root)), file.read_bytes()).found
            found += sorted(set(made), key=lambda mutant: mutant[1:])
    return found


def choose(everything: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """Choose mutants that can be compiled; more of them with the same seed begin with the same ones."""
    order = list(everything)
    random.Random(seed).shuffle(order)
    return list(itertools.islice(filter(compiles, order), count))


def compiles(mutant: Mutant) -> bool:
    try:
        compile(mutant.applied((ROOT / mutant.file).read_bytes()), mutant.file, "exec")
    except SyntaxError:
        return False
    return True


# ---------------------------------------------------------------------------------------------- lines and tests


class Map(NamedTuple):
    """Which tests run a line."""

    tests: list[str]
    sample: set[int]
    lines: dict[str, dict[int, list[int]]]

    @classmethod
    def load(cls, file: Path) -> Map:
        stored = json.loads(file.read_text())
        lines = {
            name: {int(line): tests for line, tests in found.items()}
            for name, found in stored["lines"].items()
        }
        return cls(stored["tests"], set(stored["sample"]), lines)

    def of(self, mutant: Mutant) -> tuple[list[str], list[str]]:
        """The tests that run the line of a mutant: those of the sample, and all others of the same functions.

        A line that runs in an import only, or in a process that a test starts, may be noticed by any test.
        """
        found = self.lines.get(mutant.file, {}).get(mutant.line) or range(len(self.tests))
        functions = {function_of(self.tests[test]) for test in found}
        others = [name for name in self.tests if function_of(name) in functions]
        part = Path(mutant.file).relative_to(SOURCE).parts[0].strip("_")
        nearest = sorted(others, key=lambda name: not name.startswith(f"tests/{part}/"))
        runs, sample = {self.tests[test] for test in found}, {self.tests[test] for test in self.sample}
        return (
            spread([name for name in nearest if name in sample and name in runs]),
            spread([name for name in nearest if name not in sample]),
        )


def function_of(test: str) -> str:
    """The name of a test without its parameters."""
    return test.partition("[")[0]


def spread(tests: list[str]) -> list[str]:
    """Put one test of each file first, then a second one, and so on."""
    files: dict[str, list[str]] = defaultdict(list)
    for test in tests:
        files[test.partition("::")[0]].append(test)
    return [
        each[place]
        for place in range(max(map(len, files.values()), default=0))
        for each in files.values()
        if place < len(each)
    ]


def environment(root: Path) -> dict[str, str]:
    """Of the tests: the copy's source, and no compiled file that is older than a mutant."""
    return {
        **os.environ,
        "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def collected(*arguments: str) -> list[str]:
    """The names of the tests that pytest finds."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-qq",
        "-o",
        "verbosity_test_cases=-1",
        *arguments,
    ]
    ran = subprocess.run(command, cwd=ROOT, env=environment(ROOT), capture_output=True, text=True, check=True)
    return [line for line in ran.stdout.splitlines() if "::" in line]


def make_map(directory: Path, arguments: list[str]) -> None:
    """Run the tests with coverage, and keep which test runs which line."""
    from coverage import CoverageData

    data_file = directory / "coverage"
    # A test that fails by a short timeout would end its worker, and what that has measured.
    command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "--timeout=600", *arguments]
    command += ["--cov", "--cov-context=test", "--cov-report=", "--cov-fail-under=0"]
    variables = {**environment(ROOT), "COVERAGE_FILE": str(data_file)}
    subprocess.run(command, cwd=ROOT, env=variables, check=False)
    data = CoverageData(str(data_file))
    data.read()
    tests = collected(*(each for each in arguments if each != "--sample"))
    numbers = {test: number for number, test in enumerate(tests)}
    lines: dict[str, dict[int, list[int]]] = {}
    for file in data.measured_files():
        found = {}
        for line, contexts in data.contexts_by_lineno(file).items():
            names = {context.rpartition("|")[0] for context in contexts}
            found[line] = sorted(numbers[name] for name in names if name in numbers)
        lines[str((ROOT / file).relative_to(ROOT))] = found
    sample = [numbers[test] for test in collected("--sample", *arguments)]
    (directory / "map.json").write_text(json.dumps({"tests": tests, "sample": sample, "lines": lines}))
    print(f"mutants: {len(tests)} tests, {len(sample)} in the sample; {len(lines)} files")


# ------------------------------------------------------------------------------------------------------ the run


def run_tests(root: Path, tests: list[str], command: list[str]) -> tuple[str, str]:
    """Run tests in a copy of the tree until one fails; return how it ended, and which test failed."""
    # Files and no pipes: a process that a test has left behind keeps a pipe open.
    with tempfile.TemporaryDirectory() as place, Path(place, "printed").open("w+") as printed:
        names = Path(place, "tests")
        names.write_text("\n".join(tests))
        limits = ["--timeout", str(TEST_TIMEOUT), "--timeout-method=thread"]
        process = subprocess.Popen(
            [*command, "-x", "-q", "-rfE", *limits, f"@{names}"],
            cwd=root,
            env=environment(root),
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(ALL_TIMEOUT)
        except subprocess.TimeoutExpired:
            code = TIMED_OUT
        with contextlib.suppress(ProcessLookupError):  # there is nothing left, as it should be
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        printed.seek(0)
        text = printed.read()
    return ending(code, text)


TIMED_OUT = -1000
"""Instead of an exit code: all tests together took too long."""


def ending(code: int, text: str) -> tuple[str, str]:
    """The outcome of a run of pytest: ``passed``, ``failed`` with the name of a test, or ``timeout``."""
    if code == 0:
        return "passed", ""
    if code == TIMED_OUT or re.search(r"\+ Timeout \+|from pytest-timeout", text):
        return "timeout", ""
    # 4 and 5 are mistakes of this tool, unless the mutant cannot be imported; any other code is a process that ended.
    if code in (4, 5) and "Error while loading conftest" not in text and "error" not in text:
        raise RuntimeError(f"pytest cannot run the tests:\n{text}")
    failed = re.search(r"^(?:FAILED|ERROR) (tests/.*?)(?: - .*)?$", text, re.MULTILINE)
    return "failed", failed[1] if failed else ""


def verdict(root: Path, tests: list[str], command: list[str]) -> tuple[str, str]:
    """Run tests, few at first. A failure or a timeout counts if it is there again."""
    for part in (tests[:AT_FIRST], tests[AT_FIRST:]):
        while part:
            ended, test = run_tests(root, part, command)
            if ended == "passed":
                break
            again = [test] if test in part else part
            if run_tests(root, again, command)[0] != "passed":
                return ("timeout" if ended == "timeout" else "killed"), test
            part = part[part.index(test) + 1 :] if test in part else []
    return "survived", ""


def try_mutant(
    root: Path, mutant: Mutant, known: Map, command: list[str], sample_only: bool = False
) -> dict[str, object]:
    """Change a copy of the tree, run the tests that may notice, and put the file back."""
    file = root / mutant.file
    source, times = file.read_bytes(), file.stat()
    in_sample, others = known.of(mutant)
    file.write_bytes(mutant.applied(source))
    try:
        suite, (status, test) = "sample", verdict(root, in_sample, command)
        if status == "survived" and not sample_only:
            suite, (status, test) = "all", verdict(root, others, command)
    finally:
        file.write_bytes(source)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # so that its compiled file is right again
    return {
        **mutant._asdict(),
        "status": status,
        "suite": suite if status != "survived" else "",
        "tried": suite,
        "test": test,
    }


class Report:
    """The outcome of each mutant, written to a file after each."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self.done: dict[str, dict[str, object]] = json.loads(file.read_text()) if file.exists() else {}

    def add(self, key: str, outcome: dict[str, object]) -> None:
        with self._lock:
            self.done[key] = outcome
            fresh = self._file.with_suffix(".new")
            fresh.write_text(json.dumps(self.done, indent=1))
            fresh.replace(self._file)
            print(f"{outcome['status']:9}{outcome['suite']:7} {key}", flush=True)


def copy_of_the_tree(place: Path) -> Path:
    """Copy the tree, and compile its files and tests there: that takes longer than the tests of most mutants."""
    shutil.copytree(ROOT, place, ignore=LEFT_OUT)
    variables = {**environment(place), "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq"]
    subprocess.run(command, cwd=place, env=variables, stdout=subprocess.DEVNULL, check=True)
    return place


def run(
    directory: Path, count: int, seed: int, only: str, jobs: int, command: list[str], sample_only: bool
) -> None:
    """Try a number of mutants, those that were not tried before with the same tests."""
    known = Map.load(directory / "map.json")
    everything = [mutant for mutant in mutants_of(ROOT) if only in mutant.file]
    chosen = choose(everything, count, seed)
    report = Report(directory / "report.json")
    done = {
        key
        for key, outcome in report.done.items()
        if sample_only or outcome["status"] != "survived" or outcome.get("tried") != "sample"
    }
    waiting = [mutant for mutant in chosen if mutant.key not in done]
    print(f"mutants: {len(chosen)} of {len(everything)}, {len(waiting)} to try", flush=True)
    copies: queue.SimpleQueue[Path] = queue.SimpleQueue()

    def work(mutant: Mutant) -> None:
        copy = copies.get()
        try:
            report.add(mutant.key, try_mutant(copy, mutant, known, command, sample_only))
        finally:
            copies.put(copy)

    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        for number in range(jobs):
            copies.put(copy_of_the_tree(Path(place, str(number))))
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(work, waiting))
    show(directory)


def difference(outcome: dict[str, object]) -> Iterator[str]:
    """A mutant as a diff."""
    mutant = Mutant(*(outcome[name] for name in Mutant._fields))  # type: ignore[arg-type]
    source = (ROOT / mutant.file).read_bytes()
    before, after = (text.decode().splitlines() for text in (source, mutant.applied(source)))
    yield from difflib.unified_diff(before, after, mutant.file, mutant.file, n=2, lineterm="")


def show(directory: Path) -> None:
    """Print the mutants that no test notices, those that only the full suite does, and their numbers."""
    done = Report(directory / "report.json").done.values()
    only_all = [outcome for outcome in done if outcome["suite"] == "all"]
    survived = [outcome for outcome in done if outcome["status"] == "survived"]
    for title, outcomes in (("no test notices", survived), ("only the full suite notices", only_all)):
        for outcome in outcomes:
            print(f"\n{title} ({outcome['kind']}) {outcome['test']}", *difference(outcome), sep="\n")
    print(
        f"\nmutants: {len(done)} tried; {len(done) - len(survived)} killed, of which"
        f" {sum(outcome['status'] == 'timeout' for outcome in done)} by a timeout and {len(only_all)} by the full suite"
        f" only; {len(survived)} survived"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Change the source, and see whether a test notices.")
    parser.add_argument("action", choices=["map", "run", "show"])
    parser.add_argument(
        "--directory", type=Path, default=ROOT / ".mutants", help="where the map and the report are"
    )
    parser.add_argument("--count", type=int, default=500, help="mutants (500)")
    parser.add_argument("--seed", type=int, default=1, help="which of all (1)")
    parser.add_argument("--only", default="", help="change only files with this in their path")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time (2)")
    parser.add_argument(
        "--pytest", default="-n 0 -p no:cacheprovider", help="arguments of pytest for each mutant"
    )
    parser.add_argument("--sample", action="store_true", help="only the tests of `make test`")
    options, more = parser.parse_known_args()
    if more and options.action != "map":  # where they are arguments of pytest
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    options.directory.mkdir(exist_ok=True)
    if options.action == "map":
        make_map(options.directory, ["--sample", *more] if options.sample else more)
    elif options.action == "run":
        command = [sys.executable, "-m", "pytest", *options.pytest.split()]
        run(
            options.directory,
            options.count,
            options.seed,
            options.only,
            options.jobs,
            command,
            options.sample,
        )
    else:
        show(options.directory)


if __name__ == "__main__":
    main()
