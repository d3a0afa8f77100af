"""Run one contestant once.

    python -m benchmarks._contestant MODULE:FUNCTION PAYLOAD PIECES WARM_UP [CERTIFICATE]

It writes two lines of JSON: the port it listens on (if it has a load), and at the end its reading. A contestant in
another language is a program that takes the same words and writes the same lines.
"""

from __future__ import annotations

import importlib
import sys

from benchmarks._payload import Payload
from benchmarks._trial import Trial


def main(arguments: list[str]) -> None:
    """Call the function with a trial."""
    program, payload, pieces, warm_up, *certificate = arguments
    module, _, name = program.partition(":")
    trial = Trial(Payload[payload], int(pieces), int(warm_up), *certificate)
    getattr(importlib.import_module(module), name)(trial)
    trial.report()


if __name__ == "__main__":
    main(sys.argv[1:])
