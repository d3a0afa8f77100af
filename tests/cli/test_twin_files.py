"""The files of ``wireline twin``: which are written, which are left alone, and ``--check``."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Start
from wireline.cli import main

MADE = "# Made by 'wireline twin' from {}: edit that file.\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package ``mine.aio``; the tests run in the directory of ``mine``."""
    monkeypatch.chdir(tmp_path)
    aio = tmp_path / "mine" / "aio"
    (aio / "deep").mkdir(parents=True)
    for directory in (aio.parent, aio, aio / "deep"):
        (directory / "__init__.py").write_text("")
    (aio / "client.py").write_text("from mine.aio import deep\n\n\nasync def f():\n    await deep.g()\n")
    (aio / "deep" / "part.pyi").write_text("async def g() -> None: ...\n")
    (aio / "py.typed").write_text("")
    (aio / "__pycache__").mkdir()
    (aio / "__pycache__" / "x.py").write_text("(")
    return aio


def run(*words: str) -> int:
    return main(["twin", *words])


def files(directory: str) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in Path(directory).rglob("*") if path.is_file())


def test_a_package_has_a_twin(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("mine/aio", "mine/sync") == 0
    assert files("mine/sync") == ["__init__.py", "client.py", "deep/__init__.py", "deep/part.pyi"]
    assert capsys.readouterr() == ("", "".join(f"wrote mine/sync/{name}\n" for name in files("mine/sync")))
    made = Path("mine/sync/client.py").read_text()
    assert made.startswith(MADE.format("../aio/client.py"))
    assert made.endswith("from mine.sync import deep\ndef f():\n    deep.g()\n")
    assert Path("mine/sync/deep/part.pyi").read_text().startswith(MADE.format("../../aio/deep/part.pyi"))
    # A second time nothing is to be done, and files are not touched.
    before = os.stat("mine/sync/client.py")
    assert run("mine/aio", "mine/sync") == 0
    assert os.stat("mine/sync/client.py") == before
    assert capsys.readouterr() == ("", "")


def test_the_twin_does_not_depend_on_the_directory_in_which_it_is_made(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("mine/aio", "mine/sync") == 0
    monkeypatch.chdir(package / "deep")
    assert run("--check", str(package), "../../sync") == 0


def test_twins_whose_files_are_gone_are_removed_and_others_stay(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("mine/aio", "mine/sync") == 0
    Path("mine/sync/by_hand.py").write_text("x = 1\n")
    (package / "client.py").unlink()
    capsys.readouterr()
    assert run("--check", "mine/aio", "mine/sync") == 1
    err = capsys.readouterr().err
    assert "--- mine/sync/client.py\n+++ /dev/null\n" in err
    assert "-    deep.g()\n" in err
    assert Path("mine/sync/client.py").exists()
    assert run("mine/aio", "mine/sync") == 0
    assert capsys.readouterr().err == "removed mine/sync/client.py\n"
    assert files("mine/sync") == ["__init__.py", "by_hand.py", "deep/__init__.py", "deep/part.pyi"]


def test_check_prints_what_differs_and_writes_nothing(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--check", "mine/aio", "mine/sync") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "--- /dev/null\n+++ mine/sync/client.py\n@@ -0,0 +1,7 @@\n" in err
    assert err.endswith("wireline: 4 files differ from the twin: run the command without --check\n")
    assert not Path("mine/sync").exists()
    assert run("mine/aio", "mine/sync") == 0
    assert run("--check", "mine/aio", "mine/sync") == 0
    made = Path("mine/sync/client.py")
    made.write_text(made.read_text().replace("deep.g()", "deep.h()"))
    capsys.readouterr()
    assert run("--check", "mine/aio", "mine/sync") == 1
    err = capsys.readouterr().err
    assert "-    deep.h()\n+    deep.g()\n" in err
    assert "1 file differs" in err
    made.write_bytes(made.read_bytes().replace(b"h()", b"g()").replace(b"\n", b"\r\n"))
    assert run("--check", "mine/aio", "mine/sync") == 1


def test_the_names_of_the_user_are_given_on_the_command_line(package: Path) -> None:
    (package / "client.py").write_text("class AsyncA: pass\nclass AsyncB(AsyncA): pass\n")
    assert run("--rename", "AsyncA=A", "--rename", "AsyncB=B", "mine/aio", "mine/sync") == 0
    assert Path("mine/sync/client.py").read_text().endswith("class A: pass\nclass B(A): pass\n")


def test_what_is_no_pair_of_names_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("AsyncA", "A=", "=A", "a.b=c", "A=class", "A=1"):
        assert run("--rename", word, "a", "b") == 2
        assert "is not OLD=NEW with two names of Python" in capsys.readouterr().err
    assert run("--rename", "A=B", "--rename", "A=C", "a", "b") == 2
    assert "--rename has one name more than once" in capsys.readouterr().err


def test_a_file_of_the_user_is_never_replaced(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine/sync").mkdir()
    for content in ("x = 1\n", "", "\xff"):
        Path("mine/sync/client.py").write_text(content, encoding="latin-1")
        for words in ((), ("--check",)):
            assert run(*words, "mine/aio", "mine/sync") == 2
            assert "mine/sync/client.py was not made by 'wireline twin': move it" in capsys.readouterr().err
    assert files("mine/sync") == ["client.py"]


REFUSED = {
    ("mine/none", "mine/sync"): "mine/none does not exist",
    ("mine/aio", "mine/aio"): "are the same",
    ("mine/aio", "mine/../mine/aio"): "are the same",
    ("mine/aio", "mine/aio/sync"): "would be a part of its own package",
    ("mine/aio", "mine/__init__.py"): "is a directory, and mine/__init__.py is none",
    ("mine/aio/client.py", "mine/sync"): "the twin needs the name of a file that ends with .py",
    ("mine/aio/client.py", "mine"): "the twin needs the name of a file that ends with .py",
    ("mine/aio/py.typed", "mine/sync"): "is no Python file",
    ("mine/empty", "mine/sync"): "there is no Python file in mine/empty",
    ("mine/linked", "mine/sync"): "mine/linked/a.py is a symbolic link",
    ("mine/aio", "mine/links"): "mine/links/client.py is a symbolic link",
    (
        "mine/made.py",
        "mine/new.py",
    ): "mine/made.py was made by 'wireline twin' itself: name the async file first",
    ("mine/a\n.py", "mine/new.py"): "cannot name it: rename the file",
    ("mine/aio", "mine/loop"): "is a directory, and mine/loop is a symbolic link that leads nowhere",
    ("mine/loop", "mine/sync"): "mine/loop does not exist",
    ("mine/aio", "mine/directories"): "mine/directories/client.py is a directory",
}


def test_paths_that_do_not_go_together_are_wrong_usage(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("empty", "linked", "links", "directories/client.py"):
        Path("mine", name).mkdir(parents=True)
    Path("mine/linked/a.py").symlink_to(package / "client.py")
    Path("mine/links/client.py").symlink_to(package / "client.py")
    Path("mine/loop").symlink_to("loop")
    Path("mine/a\n.py").write_text("")
    Path("mine/made.py").write_text(MADE.format("a.py"))
    before = files(".")
    for (source, target), expected in REFUSED.items():
        assert run(source, target) == 2
        out, err = capsys.readouterr()
        assert expected in err
        assert (out, err.count("\n")) == ("", 1)
    assert files(".") == before


def test_the_twin_may_be_above_the_package(package: Path) -> None:
    """As of redis: the blocking package is ``mine``, and the async one is ``mine.aio``."""
    (package.parent / "__init__.py").unlink()
    assert run("mine/aio", "mine") == 0
    assert Path("mine/client.py").read_text().endswith("from mine import deep\ndef f():\n    deep.g()\n")
    assert (package / "client.py").read_text().startswith("from mine.aio")
    # Now there is a mine/__init__.py.
    assert run("--check", "mine/aio", "mine") == 0


def test_a_package_in_directories_that_are_no_packages(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A namespace package: which directories are a part of its name is only known where it is imported."""
    (package.parent / "__init__.py").unlink()
    assert run("mine/aio", "mine/sync") == 0
    assert "from mine.sync import deep\n" in Path("mine/sync/client.py").read_text()
    capsys.readouterr()
    (package / "client.py").write_text("from mine.aio import deep\nimport mine.aio.deep\nimport aio\n")
    assert run("mine/aio", "elsewhere/sync") == 1
    found = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[2].partition(",")[0] for line in found[:2]] == [
        "1:1: this imports the async package",
        "2:8: this imports the async package",
    ]
    assert len(found) == 3


def test_the_mode_and_the_line_ends_stay(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_bytes(
        b"\xef\xbb\xbf#!/usr/bin/env python3\r\n\r\nasync def f():\r\n\tawait g('\xc3\xa4')\r\n"
    )
    source.chmod(0o750)
    target = tmp_path / "b.py"
    assert run(str(source), str(target)) == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o750
    made = target.read_bytes()
    assert made.startswith(b"\xef\xbb\xbf#!/usr/bin/env python3\r\n# Made by ")
    assert made.endswith(b"\r\ndef f():\r\n\tg('\xc3\xa4')\r\n")
    assert made.count(b"\n") == made.count(b"\r\n")
    assert run("--check", str(source), str(target)) == 0


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_to_is_an_error(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package.parent.chmod(0o555)
    try:
        assert run("mine/aio", "mine/sync") == 1
    finally:
        package.parent.chmod(0o755)
    assert capsys.readouterr().err == "wireline: cannot make the twin: mine/sync: Permission denied\n"


def test_an_error_of_the_system_leaves_no_file_and_no_directory(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last of the four files cannot be written."""
    modes: list[int] = []

    def fail_at_the_last(fd: int, mode: int) -> None:
        modes.append(mode)
        if len(modes) == 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", fail_at_the_last)
    assert run("mine/aio", "mine/sync") == 1
    assert capsys.readouterr().err == "wireline: cannot make the twin: mine/sync: No space left on device\n"
    assert not Path("mine/sync").exists()


def test_a_path_below_a_file_is_an_error(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine/file").write_text("")
    assert run("mine/aio", "mine/file/sync") == 1
    assert (
        capsys.readouterr().err
        == "wireline: cannot make the twin: mine/file/sync/__init__.py: Not a directory\n"
    )


def test_formatters_and_isort_leave_a_twin_as_it_is(package: Path) -> None:
    """Without ``await`` the call fits into a line, and the import of time is not where it would be sorted."""
    (package / "client.py").write_text(
        '"""Text."""\n\nfrom __future__ import annotations\n\nimport asyncio\nimport sys\n\n\n'
        "async def function(argument: int) -> None:\n    await asyncio.sleep(1)\n"
        f"    await function(\n        {' + '.join(['argument'] * 7)}\n    )\n    print(sys.argv)\n"
    )
    assert run("mine/aio", "mine/sync") == 0
    for path in ("mine/aio/client.py", "mine/sync/client.py"):
        for words in (["format", "--check"], ["check", "--select", "E,W,F,I"]):
            command = [sys.executable, "-m", "ruff", *words, "--isolated", "--no-cache", path]
            ran = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
            if "No module named ruff" in ran.stderr:
                pytest.skip("there is no ruff")
            assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout


def test_check_as_a_process_of_its_own(start: Start, package: Path) -> None:
    result = start("twin", "--check", "mine/aio", "mine/sync").finish()
    assert (result.code, result.out) == (1, b"")
    assert result.err.endswith("4 files differ from the twin: run the command without --check\n")
