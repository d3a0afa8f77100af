"""``python -m wireline`` runs the command ``wireline``."""

from __future__ import annotations

import sys

from wireline.cli import main

if __name__ == "__main__":
    sys.exit(main())
