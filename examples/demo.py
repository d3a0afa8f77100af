"""Watch bytes move: a short story on loopback, with the installed command and the examples beside this file.

``make demo`` runs it. Every step states a claim and checks it. The last line has the number of bytes and
checks. The first check that fails ends the story with exit code 1. The scenes are in ``scenes``, one file each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    # Run as a file: the package `examples` is found from the directory above.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from examples.scenes import STORY
from examples.scenes.stage import Failed, Scene, Stage, make_printer

MIB = 1024 * 1024


def perform(story: Sequence[Scene], size: int = 64 * MIB) -> None:
    """Play one scene after the other, in a directory that is removed at the end.

    Args:
        story: the scenes.
        size: bytes of the large transfer.

    Raises:
        Failed: a check did not hold.
    """
    tell = make_printer()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wireline-demo-") as directory:
        stage = Stage(tell, Path(directory), size)
        for number, scene in enumerate(story, 1):
            tell(f"\n{number}. {scene.title}", "bold")
            try:
                scene.play(stage)
            except Exception as error:
                error.add_note(f"step {number}: {scene.title}")
                raise
    tell(
        f"\ndemo: {len(story)} steps, {stage.moved / MIB:.1f} MiB moved and verified, every one of {stage.checks} "
        f"checks passed, {time.monotonic() - began:.1f} s",
        "bold green",
    )


def main(argv: Sequence[str] | None = None, story: Sequence[Scene] = STORY) -> int:
    """Tell the story; return the exit code."""
    parser = argparse.ArgumentParser(description="A short story on loopback, each step checked.")
    parser.add_argument("--size", type=int, default=64, metavar="MIB", help="of the large transfer (64)")
    options = parser.parse_args(argv)
    try:
        perform(story, options.size * MIB)
    except KeyboardInterrupt:
        return 130
    except Failed as failure:
        print(f"\ndemo: FAILED: {failure} ({'; '.join(failure.__notes__)})", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
