"""``wireline check`` names the certificate at fault by its place in the chain, and asks OpenSSL about names."""

from __future__ import annotations

import contextlib
import datetime
import ssl
import threading

import pytest

from tests.cases import in_turn
from tests.cli.checked import the_tls
from tests.cli.command import accept, read_all, tcp_server
from tests.cli.test_check_tls import serving
from tests.tls import certificates
from wireline.cli import main


def day(offset: int) -> str:
    return f"{datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=offset):%Y-%m-%d}"


# The days of the certificates; the index at fault; what the sentence about it says.
FAULTS = {
    "expired leaf": ({"leaf": (-9, -2)}, 0, "the certificate of {target} [", "has expired on {-2}"),
    "expired intermediate": (
        {"intermediate": (-9, -2)},
        1,
        "the intermediate certificate CN=the intermediate (2 of 3 in the chain) of {target} has expired on {-2}",
        "the server must send the renewed one of that CA",
    ),
    "expired root": (
        {"root": (-9, -2)},
        2,
        "the root certificate CN=the root (3 of 3 in the chain) of {target} has expired on {-2}",
        "update the CAs that are trusted here",
    ),
    "intermediate that is not valid yet": (
        {"intermediate": (2, 9)},
        1,
        "the intermediate certificate CN=the intermediate (2 of 3 in the chain) of {target} is not valid before {2}",
        "compare the clocks",
    ),
    "intermediate that is no CA": (
        {"intermediate_is_ca": False},
        1,
        "the intermediate certificate CN=the intermediate (2 of 3 in the chain) of {target} is not that of a CA",
        "the server must send another chain",
    ),
    "intermediate for clients": (
        {"for_clients": 1},
        1,
        "the intermediate certificate CN=the intermediate (2 of 3 in the chain) of {target} is not for this use",
        "the server must send another chain",
    ),
    "leaf for clients": ({"for_clients": 2}, 0, "the certificate of {target} [", "is not for this use"),
}


@in_turn("case", FAULTS)
def test_FC2_the_certificate_at_fault_is_named(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    made, index, *words = FAULTS[case]
    leaf, ca_file = certificates.below(**made)  # type: ignore[arg-type]
    with serving(leaf) as target:
        assert main(["check", "--first", "--json", "--ca-file", ca_file, target]) == 5
    out, err = capfd.readouterr()
    tls = the_tls(out)
    assert (tls["at_fault"], tls["chain_trusted"]) == (index, False)
    # OpenSSL looks at the extensions of the whole chain before the name.
    assert tls["name_matches"] is (None if case.endswith(("clients", "no CA")) else True)
    assert err.count("\n") == 1
    for each in words:
        assert each.replace("{target}", target).replace("{-2}", day(-2)).replace("{2}", day(2)) in err, err


def test_FC2_the_report_marks_the_certificate_at_fault(capfd: pytest.CaptureFixture[str]) -> None:
    leaf, ca_file = certificates.below(intermediate=(-9, -2))
    with serving(leaf) as target:
        main(["check", "--first", "--ca-file", ca_file, target])
    out = capfd.readouterr().out
    (title,) = [line for line in out.splitlines() if "[at fault]" in line]
    assert "CN=the intermediate" in title


def test_FC2_two_expired_certificates_are_two_sentences(capfd: pytest.CaptureFixture[str]) -> None:
    leaf, ca_file = certificates.below(intermediate=(-9, -2), leaf=(-9, -1))
    with serving(leaf) as target:
        assert main(["check", "--first", "--ca-file", ca_file, target]) == 5
    first, second = capfd.readouterr().err.splitlines()
    assert "the intermediate certificate CN=the intermediate" in first
    assert second == f"wireline: the certificate of {target} has expired on {day(-1)}; it must be renewed"


def test_FC2_a_root_that_is_not_trusted_is_not_blamed_on_the_leaf(capfd: pytest.CaptureFixture[str]) -> None:
    leaf, _ = certificates.below()
    with serving(leaf) as target:
        assert main(["check", "--first", "--json", "--ca-file", certificates.other_ca_file(), target]) == 5
    out, err = capfd.readouterr()
    assert the_tls(out)["at_fault"] == 1
    assert (
        f"CN=the intermediate (2 of 2 in the chain) of {target} was signed by CN=the root, which was not sent and is "
        "not trusted here; --ca-file FILE"
    ) in err


NAMES = ("localhost", "LOCALHOST", "*", "*.localhost", "l*", "*st", "127.0.0.1", "::1", "elsewhere.test")
WANTED = ("localhost", "a.localhost", "127.0.0.1", "localhost.")


@pytest.mark.full
@pytest.mark.parametrize("wanted", WANTED)
def test_FC3_a_name_matches_without_trust_if_it_does_with_trust(
    wanted: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """FC3: with a trusted chain OpenSSL decides in the first handshake; without, `check` has to ask it."""
    for name in NAMES:
        answers = []
        for trusted in (True, False):
            with serving(certificates.for_name(name, trusted=trusted)) as target:
                main(
                    [
                        "check",
                        "--first",
                        "--json",
                        "--ca-file",
                        certificates.ca_file(),
                        "--sni",
                        wanted,
                        target,
                    ]
                )
            answers.append(the_tls(capfd.readouterr().out)["name_matches"])
        assert answers[0] is answers[1], (name, wanted)


def test_FC3_a_wildcard_in_a_part_of_a_label_is_decided_by_openssl(
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, matches in (("*.a.test", True), ("w*.a.test", False), ("*.test", False)):
        with serving(certificates.for_name(name, trusted=False)) as target:
            main(
                [
                    "check",
                    "--first",
                    "--json",
                    "--ca-file",
                    certificates.ca_file(),
                    "--sni",
                    "www.a.test",
                    target,
                ]
            )
        assert the_tls(capfd.readouterr().out)["name_matches"] is matches, name


FEW = {
    "untrusted, 1": (certificates.stranger, 1, "was signed by a CA that is not trusted here"),
    "untrusted, 2": (certificates.stranger, 2, "was signed by a CA that is not trusted here"),
    "wrong name, 1": (certificates.elsewhere, 1, "is not for this name"),
}


@in_turn("case, closes", [(case, closes) for case in FEW for closes in (False, True)])
def test_FC2_a_server_that_accepts_few_connections_is_blamed_all_the_same(
    capfd: pytest.CaptureFixture[str], case: str, closes: bool
) -> None:
    """A limit of connections must not hide what the first handshake has shown; it refuses or closes further ones."""
    make, connections, fault = FEW[case]
    contexts = [ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(connections)]

    def refuse() -> None:
        for context in contexts:
            context.load_cert_chain(*make())
            with contextlib.suppress(OSError), context.wrap_socket(accept(server), server_side=True) as peer:
                read_all(peer)
            if context is contexts[-1] and not closes:
                server.close()
        if closes:
            accept(server).close()
            server.close()

    with tcp_server() as (server, target):
        thread = threading.Thread(target=refuse)
        thread.start()
        words = ["--sni", "localhost", "--ca-file", certificates.ca_file()]
        assert main(["check", *words, f"tls://{target}"]) == 5
        thread.join()
    assert fault in capfd.readouterr().err
