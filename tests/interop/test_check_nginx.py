"""``wireline check`` of an nginx with a good certificate, and with each kind of bad one that is common."""

from __future__ import annotations

import pathlib
import re

import pytest

from tests.cli import conftest
from tests.cli.checked import the_report, the_tls
from tests.cli.conftest import Start
from tests.interop.web import nginx
from tests.tls import certificates

pytestmark = pytest.mark.interop

start = conftest.start

CHECK = ["check", "--first", "--ca-file", certificates.ca_file()]

# name matches, chain is trusted, the words on standard error
BAD = {
    "expired": (certificates.expired, True, False, "has expired on"),
    "wrong host": (certificates.elsewhere, False, True, "is not for 'localhost': it is for elsewhere.test;"),
    "incomplete": (certificates.incomplete, True, False, "was sent without its intermediate certificates"),
}


def test_a_good_certificate(start: Start, tmp_path: pathlib.Path) -> None:
    with nginx(tmp_path, certificates.chained()) as port:
        code, out, err = start(*CHECK, "--days", "3", f"tls://localhost:{port}").finish()
    assert (code, err) == (0, "")
    text = out.decode()
    for line in (
        rf"  127\.0\.0\.1:{port} +\d+\.\d ms  connected\n",
        r"  version +TLSv1\.3\n",
        r"  cipher +TLS_\w+\n",
        r"  key exchange +X25519\w*\n",
        r"  name +matches: localhost\n",
        r"  chain +trusted\n",
        r"  resumption +yes\n",
    ):
        assert re.search(line, text), text
    assert text.count(" days left") == 3, "one line for each certificate of the chain"


@pytest.mark.parametrize("case", BAD)
def test_a_bad_certificate_is_shown_and_is_exit_code_5(
    start: Start, tmp_path: pathlib.Path, case: str
) -> None:
    make, name_matches, chain_trusted, words = BAD[case]
    with nginx(tmp_path, make()) as port:
        code, out, err = start(*CHECK, "--json", f"tls://localhost:{port}").finish()
    assert code == 5
    assert err.startswith(f"wireline: the certificate of tls://localhost:{port} ")
    assert words in err
    assert err.count("\n") == 1
    found = the_report(out)
    tls = the_tls(out)
    assert (found["exit_code"], tls["name_matches"], tls["chain_trusted"]) == (5, name_matches, chain_trusted)
    # It was connected to all the same, to show why.
    assert (tls["version"], tls["resumes"], tls["chain"][0]["sent"]) == ("TLSv1.3", True, True)


def test_one_that_speaks_no_tls_is_exit_code_5(start: Start, tmp_path: pathlib.Path) -> None:
    with nginx(tmp_path) as port:
        code, _, err = start(*CHECK, f"tls://localhost:{port}").finish()
    assert code == 5
    assert "does not use TLS on this port: check the port, or connect without TLS" in err
