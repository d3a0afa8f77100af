"""The script for zsh, on its functions ``_arguments`` and ``_describe``."""

from __future__ import annotations

from collections.abc import Iterator

from wireline.cli.completion._model import (
    Command,
    Option,
    Program,
    Value,
    has_beginnings,
    indented,
    quoted,
    values_of,
)


def script(program: Program) -> str:
    """Make the script."""
    values = values_of(program)
    parts = [
        "#compdef wireline",
        "# zsh completion for wireline, made by 'wireline completion zsh'",
        *(_value_function(value, number) for number, value in enumerate(values)),
        *(_command_function(command, values) for command in program.commands),
        _main_function(program, values),
        # As a file in fpath it is the body of the function; sourced, it defines the function.
        'if [[ $funcstack[1] == _wireline ]]; then\n    _wireline "$@"\nelse\n    compdef _wireline wireline\nfi',
    ]
    return "\n\n".join(parts) + "\n"


def _main_function(program: Program, values: list[Value]) -> str:
    described = [quoted(f"{command.name}:{_escaped(command.description)}") for command in program.commands]
    cases = [f"{command.name}) _wireline_{command.name} ;;" for command in program.commands]
    lines = [
        'local curcontext="$curcontext" state line',
        "typeset -A opt_args",
        "local -a commands=(",
        *(f"    {each}" for each in described),
        ")",
        "_arguments -C -S \\",
        *(f"    {spec} \\" for option in program.itself.options for spec in _specs(option, values)),
        "    '1:command:->command' '*::argument:->argument' && return",
        "case $state in",
        "    command) _describe -t commands command commands ;;",
        "    argument)",
        "        case $words[1] in",
        *(f"            {case}" for case in cases),
        "        esac",
        "        ;;",
        "esac",
    ]
    return f"_wireline() {{\n{indented(lines)}\n}}"


def _command_function(command: Command, values: list[Value]) -> str:
    specs = [spec for option in (*command.options, *command.arguments) for spec in _specs(option, values)]
    lines = " \\\n        ".join(specs)
    return f"_wireline_{command.name}() {{\n    _arguments -s -S \\\n        {lines}\n}}"


def _specs(option: Option, values: list[Value]) -> Iterator[str]:
    """The words of ``_arguments`` for an option, one for each of its names, or for an argument."""
    value = f":{_value(option.value, values)}" if option.value else ""
    if not option.names:
        yield quoted(("*" if option.repeats else "") + value)
    for name in option.names:
        # An option that was given is offered again only if it repeats.
        excluded = [*option.excludes, *(() if option.repeats else option.names)]
        equals = "=" if value and name.startswith("--") else ""
        list_of_others = f"({' '.join(excluded)})" if excluded and not option.repeats else "*"
        yield quoted(f"{list_of_others}{name}{equals}[{_escaped(option.description)}]{value}")


def _value(value: Value, values: list[Value]) -> str:
    """Name and action of a value. A blank is the action that completes nothing."""
    if has_beginnings(value):
        action = f"_wireline_value_{values.index(value)}"
    elif value.files:
        action = "_files"
    elif value.words:
        words = " ".join(quoted(word) for word, _ in value.words)  # zsh evaluates them
        action = f"({words.replace(':', chr(92) + ':')})"
    else:
        action = " "
    return f"{_escaped(value.name)}:{action}"


def _value_function(value: Value, number: int) -> str:
    lines = []
    for prefix in value.file_prefixes:
        lines += [f"if compset -P {quoted(prefix)}; then", "    _files", "    return", "fi"]
    for prefix in value.socket_prefixes:
        lines += [f"if compset -P {quoted(prefix)}; then", "    _files -g '*(=)'", "    return", "fi"]
    # A word that is only a beginning has no blank after it.
    begins = [_described(word, text) for word, text in value.words if word.endswith((":", "/"))]
    whole = [_described(word, text) for word, text in value.words if not word.endswith((":", "/"))]
    lines += [f"local -a begins=({' '.join(begins)}) whole=({' '.join(whole)})"]
    lines += [f"_describe -t values {value.name} begins -S '' -- whole"]
    return f"_wireline_value_{number}() {{\n{indented(lines)}\n}}"


def _described(word: str, text: str) -> str:
    return quoted(f"{_escaped(word)}:{_escaped(text)}")


def _escaped(text: str) -> str:
    """Text inside of a specification, in which colons, brackets and backslashes have a meaning."""
    for special in "\\:[]":
        text = text.replace(special, f"\\{special}")
    return text
