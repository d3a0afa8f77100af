"""The part of ``--show-code`` of ``relay`` that shows the data, for ``--dump``."""

from __future__ import annotations

from wireline.cli.show_code._program import Program

_DUMP = """\
numbers = itertools.count(1)


def dump(number, server):
    moved = {{">": 0, "<": 0}}

    def show(sink, data):
        arrow = ">" if sink is server else "<"
        start = f"{{time.strftime('%H:%M:%S')}} #{{number}}"
        end = f"{{start}} end {{arrow}} after {{moved[arrow]}} bytes"
{rows}
        moved[arrow] += len(data)
        print("\\n".join(lines), file=sys.stderr)

    return show"""

_HEX = """\
        lines = [f"{start} {arrow} {len(data)} bytes" if data else end]
        for first in range(0, len(data), 16):
            row = data[first : first + 16]
            text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
            lines.append(f"#{number} {arrow} {moved[arrow] + first:06x}  {row.hex(' '):47}  {text}")"""

_TEXT = """\
        lines = [f"{start} {arrow} {repr(line)[2:-1]}" for line in data.splitlines(keepends=True)] or [end]"""


def define_dump(program: Program) -> str:
    """Add the function that makes a tap; return the argument of ``StreamRelay``."""
    for module in ("itertools", "sys", "time"):
        program.use(module)
    program.define(_DUMP.format(rows=_HEX if program.options.dump == "hex" else _TEXT))
    return "tap=dump(next(numbers), server)"
