"""The script for bash.

Readline splits words at ``:`` and ``=``, and replaces only the last part. So the script finds the words itself, by
blanks, and removes from each candidate what stands before that part.
"""

from __future__ import annotations

from collections.abc import Iterator

from wireline.cli.completion._model import Command, Option, Program, Value, quoted

_SCRIPT = r"""# bash completion for wireline, made by 'wireline completion bash'

# Offer those of the words that begin with what is typed. Each may have a tab and a description after it.
_wireline_offer() {
    local item word width=0
    local -a items=() words=()
    for item in "$@"; do
        word=${item%%$'\t'*}
        # The path after a beginning that is complete is not a word.
        [[ $word == "$typed"* && ! ($word == "$typed" && $word == *[:/]) ]] || continue
        items+=("$item") words+=("$word")
        ((${#word} > width)) && width=${#word}
    done
    if ((${#words[@]} == 1)) && [[ ${words[0]} == *[:/] ]]; then
        compopt -o nospace
    fi
    # Descriptions are only for a list that is shown: '?' after a second TAB, '!' and '@' by settings of readline.
    if ((${#words[@]} < 2)) || [[ ! $COMP_TYPE =~ ^(33|63|64)$ ]]; then
        COMPREPLY=("${words[@]}")
        return
    fi
    for item in "${items[@]}"; do
        word=${item%%$'\t'*}
        if [[ $item == *$'\t'* ]]; then
            printf -v word '%-*s  (%s)' "$width" "$word" "${item#*$'\t'}"
        fi
        COMPREPLY+=("${word:0:${COLUMNS:-80}-1}")
    done
}

# Let bash complete a path itself, quoting included.
_wireline_files() {
    compopt -o bashdefault -o default
}

# Offer the paths of sockets, and the directories on the way to them.
_wireline_sockets() {
    local path
    compopt -o filenames
    while IFS= read -r path; do
        if [[ -S $path || -d $path ]]; then
            COMPREPLY+=("$1$path")
        fi
    done < <(compgen -f -- "${typed#"$1"}")
}

# Complete the value of an option, "COMMAND --option"; fail if there is no such option that has a value.
_wireline_value() {
    case $1 in
@VALUES@
        *) return 1 ;;
    esac
}

_wireline_options() {
    case $1 in
@OPTIONS@
    esac
}

_wireline_arguments() {
    case $1 in
@ARGUMENTS@
    esac
}

_wireline() {
    local line=${COMP_LINE:0:COMP_POINT} typed= option= command= word i count lead
    local -a words
    COMPREPLY=()
    read -ra words <<< "$line"
    count=${#words[@]}
    if [[ $line != *[[:blank:]] ]]; then
        count=$((count - 1))
        typed=${words[count]}
    fi
    for ((i = 1; i < count; i++)); do
        option=${words[i]}
        if [[ -z $command && $option != -* ]]; then
            command=$option
        fi
    done
    if [[ $typed == --*=* ]]; then
        option=${typed%%=*}
        typed=${typed#*=}
    fi
    if ! _wireline_value "$command $option"; then
        if [[ $typed == -* ]]; then
            _wireline_options "$command"
        else
            _wireline_arguments "$command"
        fi
    fi
    if [[ $COMP_WORDBREAKS == *:* ]]; then
        lead=${typed%"${typed##*:}"}
        for i in "${!COMPREPLY[@]}"; do
            COMPREPLY[i]=${COMPREPLY[i]#"$lead"}
        done
    fi
}

complete -F _wireline wireline
"""


def script(program: Program) -> str:
    """Make the script."""
    values = list(_values(program))
    options = [line for command in program.all for line in _offers(command.name, _words(command.options))]
    arguments = list(_offers("", ((command.name, command.description) for command in program.commands)))
    arguments += [line for command in program.commands for line in _arguments(command)]
    parts = {"@VALUES@": values, "@OPTIONS@": options, "@ARGUMENTS@": arguments}
    text = _SCRIPT
    for name, lines in parts.items():
        text = text.replace(name, "\n".join(f"        {line}" for line in lines))
    return text


def _words(options: tuple[Option, ...]) -> Iterator[tuple[str, str]]:
    for option in options:
        for name in option.names:
            yield name, option.description


def _offers(case: str, words: Iterator[tuple[str, str]]) -> Iterator[str]:
    yield f"{quoted(case)})"
    yield "    _wireline_offer \\"
    lines = [f"        {_item(word, description)}" for word, description in words]
    yield " \\\n        ".join(lines)
    yield "    ;;"


def _item(word: str, description: str) -> str:
    return f"{quoted(word)}$'\\t'{quoted(description)}" if description else quoted(word)


def _values(program: Program) -> Iterator[str]:
    """The cases of options that have a value, those with the same value together."""
    cases: dict[Value, list[str]] = {}
    for command in program.all:
        for option in command.options:
            if option.value is not None:
                # The name is for people, and makes no difference here.
                names = [quoted(f"{command.name} {name}") for name in option.names]
                cases.setdefault(option.value._replace(name=""), []).extend(names)
    for value, names in cases.items():
        yield " | \\\n            ".join(names) + ")"
        yield from (f"    {line}" for line in _completed(value))
        yield "    ;;"


def _arguments(command: Command) -> Iterator[str]:
    yield f"{quoted(command.name)})"
    for value in dict.fromkeys(argument.value for argument in command.arguments if argument.value):
        yield from (f"    {line}" for line in _completed(value))
    yield "    ;;"


def _completed(value: Value) -> Iterator[str]:
    """The commands that complete a value."""
    if value.files:
        yield "_wireline_files"
        return
    for prefix in value.file_prefixes:
        yield f"[[ $typed == {quoted(prefix)}* ]] && _wireline_files"
    for prefix in value.socket_prefixes:
        yield f"[[ $typed == {quoted(prefix)}* ]] && _wireline_sockets {quoted(prefix)}"
    # Words that are offered replace what was offered before; none of them begins with a path.
    words = " ".join(_item(*word) for word in value.words)
    yield f"((${{#COMPREPLY[@]}})) || _wireline_offer {words}" if words else ":"
