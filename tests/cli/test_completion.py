"""Completion: the scripts, asked in real shells."""

from __future__ import annotations

import argparse
import functools
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pexpect
import pytest

import wireline
from tests.cli.conftest import Start
from tests.tools import require_tool
from wireline.cli import main
from wireline.cli.completion import _bash, _fish, _zsh
from wireline.cli.completion._model import program_of, short
from wireline.cli.parser._parser import make_parser
from wireline.cli.parser._usage import Parser

SOURCE = Path(wireline.__file__).parents[1]
SHELLS = ("bash", "zsh", "fish")
SCRIPTS = {"bash": _bash.script, "zsh": _zsh.script, "fish": _fish.script}


@functools.cache
def script(shell: str) -> str:
    return SCRIPTS[shell](program_of(make_parser()))


def awkward_parser() -> Parser:
    """A program whose help has everything that a shell could take for its own."""
    parser = Parser("wireline")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers()
    go = commands.add_parser("go", help='the user\'s [own] command: $HOME `id` \\ "x" %%')
    go.add_argument("--odd", metavar="FILE", help='the user\'s [own] $HOME `id` \\n "x" 50%% of a:b *?!#')
    go.add_argument("--even", choices=("a:b", "it's", "[x]"), help="one of $(three)")
    go.summary = "the user's [own] command: $HOME `id`"
    parser.commands["go"] = go
    return parser


# ------------------------------------------------------------------------------- what a shell offers for a line


Offered = dict[str, str]
"""The words that a shell offers, with their descriptions."""


def offered_by_bash(text: str, lines: Sequence[str], directory: Path) -> list[Offered]:
    return [offered_once_by_bash(text, line, directory) for line in lines]


def offered_once_by_bash(text: str, line: str, directory: Path) -> Offered:
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    program = f"""
COLUMNS=200
compopt() {{ :; }}  # works only while bash completes
{text}
COMP_WORDS=({" ".join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}
COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=63
_wireline wireline {shlex.quote(words[-1])} {shlex.quote(words[-2])}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    ran = subprocess.run(
        [require_tool("bash", "bash"), "--norc", "-c", program],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
        cwd=directory,
    )
    assert ran.stderr == ""
    lines = (re.fullmatch(r"(.*?)(?: +\((.*)\))?", each) for each in ran.stdout.splitlines() if each)
    return {found[1]: found[2] or "" for found in lines if found}


# Asks for completions in a terminal of its own, and prints what the completion system adds. The matches and their
# descriptions are those that `compadd` gets from `_describe` and `_arguments`.
ZSH = r"""
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'PS1= PROMPT2= ; stty -echo; source "$WORK/setup"; echo SET''UP'
zpty -r -m z line '*SETUP*'
while IFS= read -r typed; do
    print -r -- "LINE $typed"
    zpty -n -w z $'\025'"$typed"$'\t'
    while zpty -r -m z line '*'$'\n'; do
        line=${${line//$'\r'/}%$'\n'}
        [[ $line == *END-OF-MATCHES* ]] && break
        print -r -- $line
    done
done < $WORK/lines
zpty -d z
"""
ZSH_SETUP = r"""
autoload -Uz compinit; compinit -u -D
bindkey '^I' complete-word '^U' kill-whole-line
zstyle ':completion:*' list-grouped false  # options with the same description are not in one row
source $WORK/script
finished() { print; print END-OF-MATCHES; comppostfuncs=(finished); }  # they are called once
comppostfuncs=(finished)
compadd() {
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
        builtin compadd "$@"
        return
    fi
    local -a found shown
    local name=${@[$[${@[(i)-d]}+1]]} i
    if (( $@[(I)-d] )); then
        [[ $name == \(* ]] && eval "shown=$name" || shown=("${(@P)name}")
    fi
    builtin compadd -A found -D shown "$@"
    for ((i = 1; i <= $#found; i++)); do
        print -r -- "MATCH ${found[i]}"$'\t'"${shown[i]}"
    done
}
"""


def offered_by_zsh(text: str, lines: Sequence[str], directory: Path) -> list[Offered]:
    work = directory / ".zsh"
    work.mkdir(exist_ok=True)
    (work / "script").write_text(text)
    (work / "setup").write_text(ZSH_SETUP)
    (work / "lines").write_text("".join(f"{line}\n" for line in lines))
    ran = subprocess.run(
        [require_tool("zsh", "zsh"), "-f", "-c", ZSH],
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
        cwd=directory,
        env={"WORK": str(work), "PATH": "/usr/bin:/bin", "HOME": str(work), "TERM": "dumb"},
    )
    found: list[Offered] = []
    for each in ran.stdout.splitlines():
        if each.startswith("LINE "):
            found.append({})
        elif "MATCH " in each:
            word, _, shown = each.partition("MATCH ")[2].partition("\t")
            found[-1][shlex.split(word)[0]] = shown.partition(" -- ")[2]
    assert len(found) == len(lines)
    return found


def offered_by_fish(text: str, lines: Sequence[str], directory: Path) -> list[Offered]:
    asked = "".join(f"echo LINE; complete -C {shlex.quote(line)}\n" for line in lines)
    ran = subprocess.run(
        [require_tool("fish", "fish"), "--no-config", "-c", f"{text}\n{asked}"],
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
        cwd=directory,
        env={"HOME": str(directory), "PATH": "/usr/bin:/bin", "TERM": "dumb", "LANG": "C.UTF-8"},
    )
    assert ran.stderr == ""
    answers = ran.stdout.split("LINE\n")[1:]
    return [dict((*each.split("\t"), "")[:2] for each in answer.splitlines()) for answer in answers]


OFFERED: dict[str, Callable[[str, Sequence[str], Path], list[Offered]]] = {
    "bash": offered_by_bash,
    "zsh": offered_by_zsh,
    "fish": offered_by_fish,
}

LINES = {
    "wireline ": {"connect": "connect to a peer", "listen": "listen for connections"},
    "wireline ch": {"check": "test a server and its certificates"},
    "wireline --debug re": {"relay": "forward connections"},
    "wireline check --star": {"--starttls": "begin without TLS in this protocol, and ask for TLS"},
    "wireline connect --no": {"--no-verify": "accept any certificate"},
    "wireline connect --c": {
        "--ca-file": "trust these CAs",
        "--crlf": r"send each \n of standard input as \r\n",
    },
    "wireline check --starttls po": {"pop3": "", "postgres": ""},
    "wireline connect --at-eof ": {"half-close": "", "wait": "", "close": ""},
    "wireline connect --timeout 3 --tls-min ": {"1.2": "", "1.3": ""},
    "wireline completion f": {"fish": ""},
    "wireline connect --key-password ": {"prompt": "ask on the terminal"},
}


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_options_and_values_with_their_descriptions(shell: str, tmp_path: Path) -> None:
    answers = OFFERED[shell](script(shell), list(LINES), tmp_path)
    for (line, wanted), found in zip(LINES.items(), answers, strict=True):
        for word, description in wanted.items():
            assert word in found, (line, found)
            # With one candidate bash shows none.
            if len(found) > 1 and description:
                assert found[word] == description, line


@pytest.mark.parametrize("shell", SHELLS)
def test_every_option_of_every_command_is_offered(shell: str, tmp_path: Path) -> None:
    commands = make_parser().commands
    answers = OFFERED[shell](script(shell), [f"wireline {name} --" for name in commands], tmp_path)
    for (name, command), found in zip(commands.items(), answers, strict=True):
        assert found.keys() >= {each for each in command.options if each.startswith("--")}, name
        if len(found) > 1:
            assert [word for word, description in found.items() if not description] == [], name


@pytest.mark.parametrize("shell", SHELLS)
def test_a_value_is_no_command_and_a_command_has_only_its_own_options(shell: str, tmp_path: Path) -> None:
    lines = ["wireline listen --cert connect --", "wireline connect --", "wireline connect --timeout "]
    listen, connect, nothing = OFFERED[shell](script(shell), lines, tmp_path)
    assert "--chat" in listen
    assert "--chat" not in connect
    assert nothing == {}


@pytest.mark.parametrize("shell", SHELLS)
def test_descriptions_and_values_are_quoted(shell: str, tmp_path: Path) -> None:
    text = SCRIPTS[shell](program_of(awkward_parser()))
    found, values = OFFERED[shell](text, ["wireline go --", "wireline go --even "], tmp_path)
    assert found["--odd"] == 'the user\'s [own] $HOME `id` \\n "x" 50% of a:b *?!#'
    assert found["--even"] == "one of $(three)"
    assert values.keys() >= {"a:b", "it's", "[x]"}


def test_a_description_is_the_first_clause() -> None:
    assert short("trust these CAs (PEM) instead of those") == "trust these CAs"
    assert short("append the keys; by default\n to the file") == "append the keys"
    assert short("fd:N or file:PATH is read") == "fd:N or file:PATH is read"
    assert short("a " * 100).endswith("a a...")
    assert len(short("a " * 100)) <= 72


# ------------------------------------------------------------------------------- what a shell makes of a TAB

SHOW = {
    "bash": "wireline() { printf '<%s>' \"$@\"; echo; }; PS1=; stty -echo",
    "zsh": "wireline() { printf '<%s>' \"$@\"; echo; }; "
    "autoload -Uz compinit; compinit -u -D; PS1=; unsetopt PROMPT_SP",
    "fish": "function wireline; printf '<%s>' $argv; echo; end; function fish_prompt; end",
}
START = {
    "bash": ["--norc", "--noprofile", "-i"],
    "zsh": ["-f", "-i"],
    "fish": ["--no-config", "-i"],
}


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory with a file whose name needs quoting, a socket, and other files."""
    (tmp_path / "my file.pem").touch()
    (tmp_path / "other.pem").touch()
    (tmp_path / "sockets").mkdir()
    (tmp_path / "sockets" / "plain").touch()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "sockets" / "peer.sock"))
        yield tmp_path


def after_tab(shell: str, lines: Sequence[str], directory: Path) -> Iterator[str]:
    """What a shell runs for lines that a TAB has completed: the words of each in angle brackets."""
    (directory / ".script").write_text(script(shell))
    child = pexpect.spawn(
        require_tool(shell, shell),
        START[shell],
        cwd=str(directory),
        env={"HOME": str(directory), "PATH": "/usr/bin:/bin", "TERM": "dumb", "LANG": "C.UTF-8"},
        dimensions=(50, 200),
        timeout=20,
        encoding="utf-8",
    )
    try:
        child.sendline(f"{SHOW[shell]}; source ./.script; echo REA''DY")
        child.expect("READY")
        for line in lines:
            child.send(f"{line}\t")
            # What follows is a part of the last word, unless the TAB has ended that.
            child.send("END\r")
            child.expect(r"(<[^\r\n]*)END>")
            assert isinstance(child.match, re.Match)
            yield child.match[1].removesuffix("><")
    finally:
        child.close(force=True)


PATHS = {
    "wireline connect --ca-file my": "<connect><--ca-file><my file.pem",
    "wireline connect --ca-file=oth": "<connect><--ca-file=other.pem",
    "wireline connect unix:sockets/p": "<connect><unix:sockets/peer.sock",
    "wireline connect unix:sock": "<connect><unix:sockets/",
    "wireline relay tl": "<relay><tls://",
    "wireline connect --key-password file:oth": "<connect><--key-password><file:other.pem",
    "wireline twin oth": "<twin><other.pem",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_paths_of_files_and_sockets(shell: str, directory: Path) -> None:
    found = after_tab(shell, list(PATHS), directory)
    assert dict(zip(PATHS, found, strict=True)) == PATHS


# ------------------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_the_script(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert capfd.readouterr() == (script(shell), "")


def test_an_unknown_shell_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "cmd.exe"]) == 2
    assert "invalid choice" in capsys.readouterr().err


def test_a_full_disk_is_reported(start: Start) -> None:
    result = start("completion", "bash", redirect="> /dev/full").finish()
    assert (result.code, result.err) == (
        1,
        "wireline: cannot write to standard output: No space left on device\n",
    )


def test_a_hidden_argument_is_not_offered() -> None:
    connect = next(each for each in program_of(make_parser()).commands if each.name == "connect")
    hidden = [
        action for action in make_parser().commands["connect"].arguments if action.help == argparse.SUPPRESS
    ]
    assert hidden
    assert [argument.value and argument.value.name for argument in connect.arguments] == ["TARGET"]


def test_it_needs_no_other_package() -> None:
    program = "from wireline.cli import main; raise SystemExit(main(['completion', 'bash']))"
    words = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(SOURCE)!r}); {program}"]
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True, timeout=20)
