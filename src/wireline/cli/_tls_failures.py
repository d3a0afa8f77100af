"""Exit codes and sentences of TLS errors: which certificate, which rule, which name.

The tables below explain OpenSSL's errors in terms of what the user can change.
"""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from wireline.cli._outcome import ExitCode, Failure, HandshakeFailure, Outcome, Stage
from wireline.cli._printable import sanitize_for_terminal
from wireline.cli.check import _chain_faults
from wireline.tls import Certificate, TruncatedError

if TYPE_CHECKING:
    from wireline.cli.check._certificate_info import CertificateInfo

_MAX_DESCRIPTION = 300
"""Characters of the description of a certificate: it contains text of an untrusted peer."""


def classify(failure: Failure) -> Outcome | None:
    """Return the exit code and the sentence of a TLS error; None for any other error."""
    cause, subject = failure.cause, failure.subject
    if isinstance(cause, HandshakeFailure):
        return Outcome(ExitCode.HANDSHAKE, _handshake(cause, subject))
    if not isinstance(cause, ssl.SSLError):
        return None
    if failure.stage is Stage.SETUP:
        return Outcome(ExitCode.FAILED, f"cannot use TLS: {_setup(cause)}")
    if isinstance(cause, TruncatedError):
        words = "closed the connection without ending TLS (no close_notify); the data may be incomplete"
        return Outcome(ExitCode.TRUNCATED, f"{subject} {words}")
    if _alert(cause) is not None:
        # In TLS 1.3 the client completes its handshake before the server has checked the client's certificate.
        return Outcome(ExitCode.HANDSHAKE, _handshake(HandshakeFailure(cause, server=False), subject))
    words = f"it sent what cannot be decrypted (OpenSSL: {_openssl_text(cause)})"
    return Outcome(
        ExitCode.TRUNCATED, f"the connection with {subject} broke: {words}; the data is incomplete"
    )


# ------------------------------------------------------------------------------------------------- the handshake

_NOT_TLS = "{subject} does not use TLS on this port: check the port, or connect without TLS"

# Alerts of the other side (RFC 8446, 6.2).
_ALERTS = {
    "CERTIFICATE_REQUIRED": "it requires a client certificate: give one with --cert and --key",
    "UNKNOWN_CA": "it does not trust the CA of our certificate",
    "CERTIFICATE_EXPIRED": "our certificate has expired, or its clock is wrong",
    "BAD_CERTIFICATE": "it does not accept our certificate, because of its name, its dates or its signature",
    "UNSUPPORTED_CERTIFICATE": "our certificate is not for this use",
    "CERTIFICATE_REVOKED": "our certificate was revoked",
    "CERTIFICATE_UNKNOWN": "it does not accept our certificate",
    "ACCESS_DENIED": "our certificate is valid, but has no access",
    "UNKNOWN_PSK_IDENTITY": "it has no pre-shared key for this identity",
    "PROTOCOL_VERSION": "it supports no version of TLS that this side does, which are 1.2 and 1.3, or those between "
    "--tls-min and --tls-max; older ones are not safe",
    "INSUFFICIENT_SECURITY": "it requires stronger ciphers than this system has",
    "UNRECOGNIZED_NAME": "it has no certificate for this name: give another name with --sni",
    "NO_APPLICATION_PROTOCOL": "it supports none of the protocols of --alpn",
    "UNSUPPORTED_EXTENSION": "it does not accept what this side offers: it, or a device in between, needs an update",
    "MISSING_EXTENSION": "it requires a name, which --sni NAME sends, or a pre-shared key (--psk-file)",
    "INTERNAL_ERROR": "it has an error of its own: see its log",
    "DECODE_ERROR": "it does not understand our handshake: it may not use TLS on this port",
    "UNEXPECTED_MESSAGE": "it expected something else: it may use TLS only after STARTTLS",
    "DECRYPT_ERROR": "it could not check our signature or key: compare certificate and key",
    "ILLEGAL_PARAMETER": "it does not accept what this side offers: it, or a device in between, needs an update",
    "USER_CANCELLED": "it was ended before TLS began",
    "HANDSHAKE_FAILURE": "there is no common cipher, kind of certificate or key, or it requires a certificate "
    "(--cert) or a pre-shared key (--psk-file)",
}
_UNKNOWN_ALERT = "it gave as the reason '{alert}' (an alert of TLS): see its log"
_PSK_ALERT = "it has another identity or another key: compare the line in the key file on both sides"
_PSK_ALERTS = frozenset(
    {"HANDSHAKE_FAILURE", "ILLEGAL_PARAMETER", "BAD_RECORD_MAC", "DECRYPT_ERROR", "UNKNOWN_PSK_IDENTITY"}
)

_OLD_VERSIONS = (
    "{subject} supports only old versions of TLS, which are not safe: it must be updated to TLS 1.2 or 1.3"
)
_NO_VERSION = (
    "no version of TLS is left by --tls-min, --tls-max and the configuration of OpenSSL on this system"
)
_NO_CIPHER = "no cipher of --ciphers is for the versions of TLS that --tls-min and --tls-max leave"
_BROKEN_RULES = (
    "the TLS handshake with {subject} failed: what it sent breaks the rules of TLS, or was changed on the way "
    "(OpenSSL: {words})"
)
_CLOSED_IN_HANDSHAKE = "{subject} closed the connection during the handshake"

# Errors that this side found.
_CLIENT_REASONS = {
    "WRONG_VERSION_NUMBER": _NOT_TLS,
    "PACKET_LENGTH_TOO_LONG": _NOT_TLS,
    "RECORD_LAYER_FAILURE": _NOT_TLS,
    "UNEXPECTED_MESSAGE": _NOT_TLS,
    "UNEXPECTED_EOF_WHILE_READING": f"{_CLOSED_IN_HANDSHAKE}: it does not use TLS on this port, or refuses us",
    "UNSUPPORTED_PROTOCOL": _OLD_VERSIONS,
    "DH_KEY_TOO_SMALL": "{subject} uses a key exchange that is too weak: its configuration must be updated",
    "UNSAFE_LEGACY_RENEGOTIATION_DISABLED": "{subject} does not know secure renegotiation (RFC 5746), and "
    "without it TLS 1.2 is not safe: it must be updated",
    "WRONG_SIGNATURE_TYPE": "{subject} signs with an algorithm that is not safe, such as SHA-1: it must be updated",
    "NO_PROTOCOLS_AVAILABLE": _NO_VERSION,
    "NO_CIPHERS_AVAILABLE": _NO_CIPHER,
}
_SERVER_REASONS = {
    "HTTP_REQUEST": "{subject} sent plain HTTP, and this is TLS: use https:// in the client",
    "WRONG_VERSION_NUMBER": "{subject} does not use TLS",
    "PACKET_LENGTH_TOO_LONG": "{subject} does not use TLS",
    "RECORD_LAYER_FAILURE": "{subject} does not use TLS",
    "UNEXPECTED_MESSAGE": "{subject} does not use TLS",
    "UNEXPECTED_EOF_WHILE_READING": _CLOSED_IN_HANDSHAKE,
    "UNSUPPORTED_PROTOCOL": _OLD_VERSIONS,
    "VERSION_TOO_LOW": _OLD_VERSIONS,
    "NO_SHARED_CIPHER": "{subject} has no cipher in common with us",
    "NO_SUITABLE_KEY_SHARE": "{subject} has no group of the key exchange in common with us",
    "NO_SUITABLE_GROUPS": "{subject} has no group of the key exchange in common with us",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "{subject} accepts no signature that the key of our certificate can make",
    "NO_PROTOCOLS_AVAILABLE": _NO_VERSION,
    "NO_CIPHERS_AVAILABLE": _NO_CIPHER,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "{subject} sent no certificate: it needs one of a CA in the file of "
    "--client-ca",
}
_PSK_REASON = "{subject} does not have the pre-shared key of any identity in the file of --psk-file"
_PSK_REASONS = frozenset(
    {
        "BINDER_DOES_NOT_VERIFY",
        "DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
        "DIGEST_CHECK_FAILED",
        "PSK_IDENTITY_NOT_FOUND",
        "NO_SUITABLE_SIGNATURE_ALGORITHM",
        "NO_SHARED_CIPHER",
    }
)


def _handshake(failure: HandshakeFailure, subject: str) -> str:
    error = failure.error
    if isinstance(error, ssl.SSLCertVerificationError):
        if failure.psk and not failure.server:
            return f"{subject} does not use the pre-shared key: it may be another server"
        return _verification(failure, error, subject)
    alert = _alert(error)
    if alert is not None:
        is_psk_alert = failure.psk and alert in _PSK_ALERTS
        words = (
            _PSK_ALERT
            if is_psk_alert
            else _ALERTS.get(alert, _UNKNOWN_ALERT.format(alert=alert.lower().replace("_", " ")))
        )
        return f"{subject} refused the handshake: {words}"
    reason = _reason(error)
    if failure.server and failure.psk and reason in _PSK_REASONS:
        return _PSK_REASON.format(subject=subject)
    if "is pinned" in str(error):  # raised by the library
        keys = str(error).rpartition(" are ")[2].removesuffix(")")
        return f"{subject} has no certificate of --pin: the keys of its chain, the server's first, are {keys}"
    if "ALPN" in str(error):  # raised by the library; OpenSSL would continue
        return no_common_protocol(subject)
    template = (_SERVER_REASONS if failure.server else _CLIENT_REASONS).get(reason)
    if template:
        return template.format(subject=subject)
    return _BROKEN_RULES.format(subject=subject, words=_openssl_text(error))


def no_common_protocol(subject: str) -> str:
    """The sentence about a server that supports none of the offered protocols."""
    return f"{subject} supports none of the protocols of --alpn"


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's name of the error; ``""`` if OpenSSL did not raise it."""
    return getattr(error, "reason", None) or ""


def _alert(error: ssl.SSLError) -> str | None:
    """The alert that the other side sent, in the names of RFC 8446; None if it sent none."""
    # Which alerts have a name depends on the release of OpenSSL that Python was made for; the text has it always. The
    # names of some have no "ALERT".
    text = _reason(error) or _openssl_text(error).upper().replace(" ", "_")
    found = re.search(r"^(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?(\w+)$", text)
    return found[1] if found else None


# --------------------------------------------------------------------------------------------------- certificates

_UNKNOWN_CA = (
    "was signed by a CA that is not trusted here, or was sent without its intermediate certificates; "
    "{ca_option} FILE names a CA to trust"
)
_WEAK = "is not safe: {words}; the server needs a certificate with longer keys"
_NOT_A_CA = "was signed with a certificate that is not that of a CA; its owner needs another one"
_FORBIDDEN_NAME = "is for a name that its CA may not sign; its owner needs another one"

# X509_V_ERR_*: the fault of the certificate, and after the semicolon what to do about it.
_RULES = {
    2: _UNKNOWN_CA,
    3: "cannot be checked, because there is no revocation list of its CA",
    7: "has a signature that is not of its CA; it was changed, or another CA has the same name",
    9: "is not valid yet; compare the clocks of both machines",
    10: "has expired{expiry}; it must be renewed on {subject}",
    18: "is self-signed and not trusted here; {ca_option} FILE with that certificate trusts it",
    19: "was sent with a CA certificate that is not trusted here; {ca_option} FILE names a CA to trust",
    20: _UNKNOWN_CA,
    21: _UNKNOWN_CA,
    79: _NOT_A_CA,
    22: "was signed by too many CAs, one above the other; its owner needs a shorter chain",
    23: "was revoked",
    24: _NOT_A_CA,
    25: "was signed by a CA that may not sign it; its owner needs another one",
    26: "is not for this use",
    47: _FORBIDDEN_NAME,
    48: _FORBIDDEN_NAME,
    62: "is not for this name; if it should be for another one, give that with --sni NAME",
    64: "is not for this address; connect to one of its names, or give that with --sni NAME",
    66: _WEAK,
    67: _WEAK,
    68: "is signed with a digest that is not safe (MD5 or SHA-1); its owner needs another one",
}


_OF_THE_LEAF = frozenset({18, 19, 20, 21, 62, 64, 66})
"""The codes whose rule is true of the first certificate, whatever the chain is."""


def _verification(failure: HandshakeFailure, error: ssl.SSLCertVerificationError, subject: str) -> str:
    """The sentence about the certificate at fault; about "a certificate in the chain" if it is not known which one."""
    code = error.verify_code
    infos = _read_chain(failure)
    index = failure.at_fault
    if index is None:
        index = _index_at_fault(failure, code, infos)
    if index == 0:
        return _leaf_verification(failure, error, subject)
    words = error.verify_message.rstrip(".")
    found = _chain_faults.sentence(code, words, index, infos, subject, of_files=False)
    if failure.server:
        found = found.replace("--ca-file", "--client-ca").replace(
            "the server must send", "the client must send"
        )
    return found


def _index_at_fault(failure: HandshakeFailure, code: int, infos: list[CertificateInfo]) -> int | None:
    if len(failure.chain) == 1 or code in _chain_faults.NAME_REFUSED or (not infos and code in _OF_THE_LEAF):
        return 0
    index = _chain_faults.index_at_fault(code, infos, datetime.now(UTC))
    if index is None and infos and not failure.server:
        return _chain_faults.index_by_use(code, failure.chain)
    return index


def _read_chain(failure: HandshakeFailure) -> list[CertificateInfo]:
    """The content of the chain; empty if the package cryptography is not installed."""
    try:
        from wireline.cli.check._certificate_info import read
    except ImportError:
        return []
    return [read(certificate, sent=certificate in failure.sent) for certificate in failure.chain]


def _leaf_verification(failure: HandshakeFailure, error: ssl.SSLCertVerificationError, subject: str) -> str:
    words = error.verify_message.rstrip(".")
    expiry = _expiry(failure.certificate)
    rule = _RULES.get(error.verify_code, "is refused (OpenSSL: {words})").format(
        words=words,
        subject=subject,
        ca_option="--client-ca" if failure.server else "--ca-file",
        expiry=f" on {expiry:%Y-%m-%d}" if expiry else "",
    )
    fault, semicolon, advice = rule.partition("; ")
    checked = "" if failure.server else f" (it was checked for {failure.name!r})"
    description = _description(failure.certificate)
    return f"the certificate of {subject}{description} {fault}{checked}{semicolon}{advice}"


def _description(certificate: Certificate | None) -> str:
    """Subject, names and issuer of a certificate, and its fingerprint; only that if it cannot be parsed."""
    if certificate is None:
        return ""
    digits = f"SHA-256 {certificate.fingerprint()[:16]}..."
    try:
        parts = [certificate.subject or "without a subject", f"issued by {certificate.issuer}"]
        names = _names(certificate)
    except (ImportError, ValueError):
        return f" [{digits}]"
    if names:
        parts.insert(1, f"for {', '.join(names)}")
    return f" [{sanitize_for_terminal('; '.join(parts), _MAX_DESCRIPTION)}; {digits}]"


def _names(certificate: Certificate) -> list[str]:
    """The names and addresses that a certificate is for."""
    from cryptography import x509

    parsed = x509.load_der_x509_certificate(certificate)
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]


def _expiry(certificate: Certificate | None) -> datetime | None:
    try:
        return None if certificate is None else certificate.not_valid_after
    except (ImportError, ValueError):
        return None


# ----------------------------------------------------------------------------------- files, and the text of OpenSSL


def _setup(error: ssl.SSLError) -> str:
    """The library's sentence, which names the file, and what an operator can do about an encrypted key."""
    if "OpenSSL has no cipher of " in str(error):  # raised by the library
        return "OpenSSL has none of the ciphers that --ciphers names"
    if "ciphersuites: no cipher match" in str(error):
        return "OpenSSL has none of the suites of TLS 1.3 that --ciphers names"
    text = _openssl_text(error)
    decrypt = "" if "PKCS#12" in text else ", or decrypt it first: openssl pkey -in KEY -out NEW"
    return text.replace(", and no password was given", f"; give its password with --key-password{decrypt}")


def _openssl_text(error: ssl.SSLError) -> str:
    """The text of OpenSSL, without the position in Python's source."""
    text = str(error.strerror or error)
    return re.sub(r"^\[[^]]*\] | \(_ssl\.c:\d+\)$", "", text)
