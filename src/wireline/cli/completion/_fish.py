"""The script for fish."""

from __future__ import annotations

from collections.abc import Iterator

from wireline.cli.completion._model import (
    Command,
    Option,
    Program,
    Value,
    has_beginnings,
    indented,
    values_of,
)

_HEAD = """\
# fish completion for wireline, made by 'wireline completion fish'

# Whether the command of the line is this one; '' is a line without one.
function __wireline_command_is
    set -l command ''
    for word in (commandline -opc)[2..]
        if not string match -q -- '-*' $word
            set command $word
            break
        end
    end
    test "$command" = "$argv[1]"
end

# The paths that follow a beginning such as 'unix:' and pass a test of test(1), and the directories on the way to them.
function __wireline_paths
    set -l typed (string replace -r -- '^--[^=]*=' '' (commandline -ct))
    string match -q -- "$argv[1]*" $typed; or return
    set -l path (string sub -s (math 1 + (string length -- $argv[1])) -- $typed)
    for found in $path*
        if test -d $found
            echo $argv[1]$found/
        else if test $argv[2] $found
            echo $argv[1]$found
        end
    end
end"""


def script(program: Program) -> str:
    """Make the script."""
    values = values_of(program)
    parts = [_HEAD, *(_function(value, number) for number, value in enumerate(values))]
    lines = ["complete -c wireline -f"]
    for command in program.commands:
        lines.append(f"{_complete('')} -a {_quoted(command.name)}{_description(command.description)}")
    lines += [line for command in program.all for line in _command(command, values)]
    return "\n\n".join([*parts, "\n".join(lines)]) + "\n"


def _complete(command: str) -> str:
    return f"complete -c wireline -n {_quoted(f'__wireline_command_is {_quoted(command)}')}"


def _command(command: Command, values: list[Value]) -> Iterator[str]:
    start = _complete(command.name)
    for option in command.options:
        yield f"{start}{_names(option)}{_value(option.value, values)}{_description(option.description)}"
    for value in dict.fromkeys(argument.value for argument in command.arguments if argument.value):
        completed = _completed(value, values)
        if completed:
            yield f"{start}{completed}"


def _names(option: Option) -> str:
    return "".join(f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}" for name in option.names)


def _value(value: Value | None, values: list[Value]) -> str:
    if value is None:
        return ""
    return f" -r{_completed(value, values)}" if value.files else f" -x{_completed(value, values)}"


def _completed(value: Value, values: list[Value]) -> str:
    if value.files:
        return " -F"
    if has_beginnings(value):
        return f" -a {_quoted(f'(__wireline_value_{values.index(value)})')}"
    # fish evaluates the words.
    words = " ".join(_quoted(word) for word, _ in value.words)
    return f" -a {_quoted(words)}" if words else ""


def _function(value: Value, number: int) -> str:
    lines = [f"__wireline_paths {_quoted(prefix)} -f" for prefix in value.file_prefixes]
    lines += [f"__wireline_paths {_quoted(prefix)} -S" for prefix in value.socket_prefixes]
    words = " ".join(_quoted(part) for word in value.words for part in word)
    lines.append(f"printf '%s\\t%s\\n' {words}")
    return f"function __wireline_value_{number}\n{indented(lines)}\nend"


def _description(text: str) -> str:
    return f" -d {_quoted(text)}" if text else ""


def _quoted(text: str) -> str:
    r"""A word in single quotes, in which only ``\'`` and ``\\`` are escapes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
