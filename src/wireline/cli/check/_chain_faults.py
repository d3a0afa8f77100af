"""Which certificate of a chain OpenSSL refused, and the sentence about it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from wireline.cli._printable import sanitize_for_terminal

if TYPE_CHECKING:
    from wireline.cli.check._certificate_info import CertificateInfo
    from wireline.tls import Certificate

_MAX_LENGTH = 300
"""Characters of a subject, or of the names of a certificate, in a sentence: a peer may send thousands."""

# X509_V_ERR_*.
_NO_ISSUER_FOUND, _BAD_SIGNATURE, NOT_YET_VALID, EXPIRED = 2, 7, 9, 10
_SELF_SIGNED_LEAF, _SELF_SIGNED_ROOT, _NO_ISSUER_HERE, _NO_ISSUER_OF_LEAF = 18, 19, 20, 21
_WRONG_PURPOSE, _HOST_NAME, _ADDRESS, _SHORT_KEY_OF_LEAF, _WEAK_DIGEST = 26, 62, 64, 66, 68
_NOT_A_CA, _SHORT_KEY_OF_CA, _INVALID_CA = 24, 67, 79

ISSUER_MISSING = frozenset({_NO_ISSUER_FOUND, _NO_ISSUER_HERE, _NO_ISSUER_OF_LEAF})
NAME_REFUSED = frozenset({_HOST_NAME, _ADDRESS})
AFTER_THE_NAME = frozenset({0, NOT_YET_VALID, EXPIRED})
"""No fault, or one of the dates, which OpenSSL checks after the name."""

_OF_SIGNATURE = frozenset({_BAD_SIGNATURE, _WEAK_DIGEST})
"""OpenSSL finds them only if the certificate above, with the key of the signer, is there."""

_AT_LEAF = frozenset({_SELF_SIGNED_LEAF, _NO_ISSUER_OF_LEAF, _SHORT_KEY_OF_LEAF})
_AT_END = frozenset({_NO_ISSUER_FOUND, _SELF_SIGNED_ROOT, _NO_ISSUER_HERE})
_ABOVE_LEAF = frozenset({_NOT_A_CA, _SHORT_KEY_OF_CA, _INVALID_CA})

_RENEW_HERE = "update the CAs that are trusted here, or name others with --ca-file FILE"
_RENEW_THERE = "the server must send the renewed one of that CA"
_TRUST = "--ca-file FILE names a CA to trust"

# The fault of a certificate that is not the first of its chain, and after the semicolon what to do about it.
_RULES = {
    _NO_ISSUER_FOUND: "was signed by {issuer}, which was not sent and is not trusted here; " + _TRUST,
    _BAD_SIGNATURE: "has a signature that is not of its issuer; the server must send another chain",
    NOT_YET_VALID: "is not valid before {begin}; compare the clocks of both machines",
    EXPIRED: "has expired on {end}; {renew}",
    _SELF_SIGNED_ROOT: "is not trusted here; --ca-file FILE with that certificate trusts it",
    _NO_ISSUER_HERE: "was signed by {issuer}, which was not sent and is not trusted here; " + _TRUST,
    23: "was revoked; the server must send another chain",
    _NOT_A_CA: "is not that of a CA; the server must send another chain",
    25: "allows fewer CAs below it; the server must send another chain",
    _WRONG_PURPOSE: "is not for this use; the server must send another chain",
    _SHORT_KEY_OF_CA: "has a key that is too short; the server must send another chain",
    _WEAK_DIGEST: "is signed with a digest that is broken (MD5 or SHA-1); the server must send another chain",
    _INVALID_CA: "is not that of a CA; the server must send another chain",
}


_APPEND = "append the intermediate certificates of that CA to the file, or name the CA with --ca-file FILE"

# The same for a file that is not deployed yet, and for its first certificate, too.
_RULES_OF_FILES = {
    _NO_ISSUER_FOUND: "was signed by {issuer}, which is neither in the file nor trusted here; " + _APPEND,
    EXPIRED: "has expired on {end}; {renew_file}",
    _SELF_SIGNED_LEAF: "is self-signed and not trusted here; clients must trust it, as --ca-file FILE does",
    _NO_ISSUER_HERE: "was signed by {issuer}, which is neither in the file nor trusted here; " + _APPEND,
    _NO_ISSUER_OF_LEAF: "was signed by {issuer}, which is neither in the file nor trusted here; " + _APPEND,
    _SHORT_KEY_OF_LEAF: "has a key that is too short; make a longer one",
}


def index_at_fault(code: int, chain: list[CertificateInfo], now: datetime) -> int | None:
    """The index of the certificate that OpenSSL refused with a code; None if the code and the chain do not tell."""
    if not chain:
        return None
    if code in _AT_LEAF:
        return 0
    if code in _AT_END:
        return len(chain) - 1
    if code in _ABOVE_LEAF and len(chain) == 2:
        return 1
    # OpenSSL checks the dates from the root down to the leaf.
    for index, info in reversed([*enumerate(chain)]):
        if code == EXPIRED and info.not_after is not None and info.not_after < now:
            return index
        if code == NOT_YET_VALID and info.not_before is not None and info.not_before > now:
            return index
    return None


def index_below(code: int, anchor: int, chain: tuple[Certificate, ...]) -> int:
    """The index of the certificate at fault, if OpenSSL finds the fault with this anchor, and not with a lower one."""
    from wireline.cli.check._certificate_info import is_for_servers  # needs the package cryptography

    if code in _OF_SIGNATURE or (code == _WRONG_PURPOSE and anchor == 1 and not is_for_servers(chain[0])):
        return anchor - 1
    return anchor


def index_by_use(code: int, chain: tuple[Certificate, ...]) -> int | None:
    """The index of the first certificate that may not be used as it is; OpenSSL checks that from the leaf up."""
    from wireline.cli.check._certificate_info import is_ca, is_for_servers  # needs the package cryptography

    if code == _WRONG_PURPOSE:
        unfit = [index for index, each in enumerate(chain) if not is_for_servers(each)]
    elif code in (_NOT_A_CA, _INVALID_CA):
        unfit = [index for index, each in enumerate(chain) if index and not is_ca(each)]
    else:
        return None
    return unfit[0] if unfit else None


def place(index: int, chain: list[CertificateInfo]) -> str:
    """A certificate by its place in the chain, before the name of the server: ``the intermediate certificate ...``."""
    if index == 0:
        return "the certificate"
    info = chain[index]
    kind = "root" if info.self_signed and index == len(chain) - 1 else "intermediate"
    subject = shortened(info.subject) or "without a subject"
    return f"the {kind} certificate {subject} ({index + 1} of {len(chain)} in the chain)"


def sentence(
    code: int, words: str, index: int | None, chain: list[CertificateInfo], target: str, *, of_files: bool
) -> str:
    """The sentence about a certificate that is not the first of its chain, or is not known, or is in a file.

    Args:
        code: of OpenSSL's error.
        words: its text.
        index: of the certificate at fault.
        chain: that OpenSSL built.
        target: the server, or the file.
        of_files: whether it is a file.
    """
    if index is None:
        return f"a certificate in the chain of {target} is refused (OpenSSL: {words})"
    info = chain[index]
    is_anchor = info.self_signed and index == len(chain) - 1
    rules = {**_RULES, **_RULES_OF_FILES} if of_files else _RULES
    rule = rules.get(code, "is refused (OpenSSL: {words})")
    if of_files:
        rule = rule.replace("the server must send another chain", "the file needs another chain")
    rule = rule.format(
        words=words,
        issuer=shortened(info.issuer),
        begin=_day(info.not_before),
        end=_day(info.not_after),
        renew_file=_RENEW_HERE if is_anchor else "it must be renewed in the file",
        renew=_RENEW_HERE if is_anchor or not info.sent else _RENEW_THERE,
    )
    return f"{place(index, chain)} of {target} {rule}"


def shortened(text: str) -> str:
    """A text of an untrusted peer for a sentence."""
    return sanitize_for_terminal(text, _MAX_LENGTH)


def _day(moment: datetime | None) -> str:
    return "an unknown day" if moment is None else f"{moment:%Y-%m-%d}"
