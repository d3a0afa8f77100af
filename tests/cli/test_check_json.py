"""The JSON of ``wireline check`` matches the schema in its reference, and the schema is complete."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.cases import in_turn
from tests.cli.checked import the_report
from tests.cli.command import tcp_server
from tests.cli.test_check import answers
from tests.cli.test_check_tls import only_tls_1_2, serving
from tests.tls import certificates
from wireline.cli import main

ROOT = Path(__file__).resolve().parents[2]

_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def the_schema() -> Any:
    page = (ROOT / "docs" / "reference" / "command.md").read_text(encoding="utf-8")
    block = re.search(r"^```json\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert block is not None
    return json.loads(block[1])


SCHEMA = the_schema()


def faults(value: Any, schema: Any, where: str = "$") -> list[str]:
    """The differences between a value and a schema; keys that are not in the schema are differences, too."""
    if "$ref" in schema:
        return faults(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], where)
    if "oneOf" in schema:
        tried = [faults(value, each, where) for each in schema["oneOf"]]
        return [] if sum(not found for found in tried) == 1 else [f"{where}: fits none", *tried[-1]]
    if "const" in schema and value != schema["const"]:
        return [f"{where}: {value!r}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where}: {value!r}"]
    if "type" in schema and not is_of_type(value, schema["type"]):
        return [f"{where}: {value!r} is no {schema['type']}"]
    found = []
    if isinstance(value, dict):
        found += [f"{where}.{key} is missing" for key in schema["required"] if key not in value]
        for key, each in value.items():
            known = schema["properties"].get(key)
            found += [f"{where}.{key} is unknown"] if known is None else faults(each, known, f"{where}.{key}")
    if isinstance(value, list):
        for index, each in enumerate(value):
            found += faults(each, schema["items"], f"{where}[{index}]")
    return found


def is_of_type(value: Any, kinds: str | list[str]) -> bool:
    wanted = [kinds] if isinstance(kinds, str) else kinds
    if isinstance(value, bool):
        return "boolean" in wanted
    return isinstance(value, tuple(kind for name in wanted for kind in _KINDS[name]))


def checked(capfd: pytest.CaptureFixture[str], *words: str) -> Any:
    code = main(["check", "--json", *words])
    out = capfd.readouterr().out
    assert faults(json.loads(out), SCHEMA) == []
    found = the_report(out)
    assert found["exit_code"] == code
    assert found["ok"] is (code == 0)
    return found


def test_the_schema_requires_every_key_that_it_describes() -> None:
    for each in [SCHEMA, *SCHEMA["$defs"].values()]:
        assert sorted(each.get("required", [])) == sorted(each.get("properties", {}))


def test_the_validator_finds_faults() -> None:
    assert faults([{"format": 3}], SCHEMA)[0] == "$[0].target is missing"
    assert "$[0].format: 3" in faults([{"format": 3}], SCHEMA)
    assert faults(True, {"type": "integer"}) == ["$: True is no integer"]
    assert faults(1, {"type": ["string", "null"]}) != []


def test_a_refused_connection(capfd: pytest.CaptureFixture[str]) -> None:
    with tcp_server() as (server, target):
        server.close()
        found = checked(capfd, f"tls://{target}")
    assert found["addresses"][0]["tls"] is None
    assert found["exit_code"] == 3


def test_an_unknown_name(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert checked(capfd, "many.test:80")["addresses"] == []


def test_several_addresses(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with tcp_server() as (server, _):
        port = server.getsockname()[1]
        monkeypatch.setattr(socket, "getaddrinfo", answers(("127.0.0.1", port), ("127.0.0.2", port)))
        assert len(checked(capfd, f"many.test:{port}")["addresses"]) == 2


@in_turn(
    "make",
    [certificates.server, certificates.expired, certificates.self_signed, certificates.common_name_only],
)
def test_certificates(make: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(make()) as target:
        found = checked(capfd, "--ca-file", certificates.ca_file(), target)
    assert found["addresses"][-1]["tls"]["chain"]


def test_tls_1_2(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(certificates.server(), context=only_tls_1_2()) as target:
        checked(capfd, "--ca-file", certificates.ca_file(), "--alpn", "h2", target)
