"""The JSON of ``wireline check`` about one target."""

from __future__ import annotations

import json
from typing import Any


def the_report(out: str | bytes) -> Any:
    """The entry of the only target."""
    (report,) = json.loads(out)
    return report


def the_tls(out: str | bytes) -> Any:
    """The facts about TLS with the only address that has some."""
    (tls,) = [each["tls"] for each in the_report(out)["addresses"] if each["tls"] is not None]
    return tls
