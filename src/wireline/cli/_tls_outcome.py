"""What a failure of TLS is worth as an exit code, and the sentence about it: which certificate, which rule, which name.

OpenSSL's words are for who knows OpenSSL. The tables below say the same for who has to do something about it.
"""

from __future__ import annotations

import re
import ssl
from datetime import datetime

from wireline.cli._outcome import ExitCode, Failure, HandshakeFailure, Outcome, Stage
from wireline.tls import Certificate, TruncatedError

_LONGEST_DESCRIPTION = 300
"""Characters of what a stranger's certificate says of itself."""


def look_up(failure: Failure) -> Outcome | None:
    """Judge a failure if TLS has to do with it."""
    cause, subject = failure.cause, failure.subject
    if isinstance(cause, HandshakeFailure):
        return Outcome(ExitCode.HANDSHAKE, _handshake(cause, subject))
    if not isinstance(cause, ssl.SSLError):
        return None
    if failure.stage is Stage.SETUP:
        return Outcome(ExitCode.FAILED, f"cannot use TLS: {_setup(cause)}")
    if isinstance(cause, TruncatedError):
        words = "went away without saying that this was the end (no close_notify); the data may be incomplete"
        return Outcome(ExitCode.TRUNCATED, f"{subject} {words}")
    if _alert(cause) is not None:
        # In TLS 1.3 a client is done before the server has looked at its certificate.
        return Outcome(ExitCode.HANDSHAKE, _handshake(HandshakeFailure(cause, server=False), subject))
    return Outcome(ExitCode.TRUNCATED, f"{subject} broke off: {_words(cause)}; the data is incomplete")


# ------------------------------------------------------------------------------------------------- the handshake

_NO_TLS = "{subject} does not speak TLS there: check the port, or leave TLS out"

# What the other side said before it hung up (RFC 8446, 6.2).
_ALERTS = {
    "CERTIFICATE_REQUIRED": "it wants to know who we are: give it a certificate with --cert and --key",
    "UNKNOWN_CA": "it does not trust the CA of our certificate",
    "CERTIFICATE_EXPIRED": "our certificate is out of date, or its clock is wrong",
    "BAD_CERTIFICATE": "it does not accept our certificate, for its name, its dates or its signature",
    "UNSUPPORTED_CERTIFICATE": "our certificate is not for this use",
    "CERTIFICATE_REVOKED": "our certificate was revoked",
    "CERTIFICATE_UNKNOWN": "it does not accept our certificate",
    "ACCESS_DENIED": "our certificate is good, and does not let us in",
    "UNKNOWN_PSK_IDENTITY": "it has no pre-shared key for this identity",
    "PROTOCOL_VERSION": "it has neither TLS 1.2 nor TLS 1.3, and older versions are not safe",
    "INSUFFICIENT_SECURITY": "it wants stronger ciphers than there are here",
    "UNRECOGNIZED_NAME": "it has nothing under this name: give another one with --sni",
    "NO_APPLICATION_PROTOCOL": "it speaks none of the protocols that --alpn offers",
    "HANDSHAKE_FAILURE": "we have no cipher, no kind of certificate and no key in common, or it wants a certificate "
    "(--cert) or a pre-shared key (--psk-file)",
}
_PSK_ALERT = "identity or key are not those that it knows: compare the line in the file of keys on both sides"
_PSK_ALERTS = frozenset(
    {"HANDSHAKE_FAILURE", "ILLEGAL_PARAMETER", "BAD_RECORD_MAC", "DECRYPT_ERROR", "UNKNOWN_PSK_IDENTITY"}
)

# What this side found.
_CLIENT_REASONS = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "UNEXPECTED_MESSAGE": _NO_TLS,
    "UNEXPECTED_EOF_WHILE_READING": "{subject} hung up in the middle of the handshake: it does not speak TLS there, "
    "or it does not want us",
    "UNSUPPORTED_PROTOCOL": "{subject} speaks only old versions of TLS, which are not safe: it needs TLS 1.2 or 1.3",
    "DH_KEY_TOO_SMALL": "{subject} uses a key exchange that is too weak: it has to be set up anew",
}
_SERVER_REASONS = {
    "HTTP_REQUEST": "{subject} sent plain HTTP, and this is TLS: it has to ask by https://",
    "WRONG_VERSION_NUMBER": "{subject} does not speak TLS",
    "PACKET_LENGTH_TOO_LONG": "{subject} does not speak TLS",
    "RECORD_LAYER_FAILURE": "{subject} does not speak TLS",
    "UNEXPECTED_MESSAGE": "{subject} does not speak TLS",
    "UNEXPECTED_EOF_WHILE_READING": "{subject} hung up in the middle of the handshake",
    "UNSUPPORTED_PROTOCOL": "{subject} speaks only old versions of TLS, which are not safe: it needs TLS 1.2 or 1.3",
    "VERSION_TOO_LOW": "{subject} speaks only old versions of TLS, which are not safe: it needs TLS 1.2 or 1.3",
    "NO_SHARED_CIPHER": "{subject} has no cipher in common with us",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "{subject} did not say who it is: it needs a certificate of a CA in the file "
    "of --client-ca",
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
            return f"{subject} does not show that it knows the pre-shared key: it may be another server"
        return _verification(failure, error, subject)
    alert = _alert(error)
    if alert is not None:
        words = _PSK_ALERT if failure.psk and alert in _PSK_ALERTS else _ALERTS.get(alert, _words(error))
        return f"{subject} refused the handshake: {words}"
    reason = _reason(error)
    if failure.server and failure.psk and reason in _PSK_REASONS:
        return _PSK_REASON.format(subject=subject)
    if "ALPN" in str(error):  # found by the library and not by OpenSSL, which would go on
        return f"{subject} agrees on none of the protocols that --alpn offers"
    template = (_SERVER_REASONS if failure.server else _CLIENT_REASONS).get(reason)
    return template.format(subject=subject) if template else f"no TLS with {subject}: {_words(error)}"


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's name for what happened; an ``SSLError`` that it did not raise has none."""
    return getattr(error, "reason", None) or ""


def _alert(error: ssl.SSLError) -> str | None:
    """The alert that the other side sent, as RFC 8446 calls it; None if it sent none."""
    _, sent, name = _reason(error).partition("_ALERT_")
    return name if sent else None


# --------------------------------------------------------------------------------------------------- certificates

_UNKNOWN_CA = (
    "was signed by a CA that is not trusted here, or comes without the certificates between it and that CA; "
    "{ca_option} FILE says whom to trust"
)
_WEAK = "is not safe: {words}; a new one is needed, with longer keys"

# X509_V_ERR_*: what is wrong with the certificate, and what to do about it.
_RULES = {
    9: "is not valid yet; compare the clocks of both machines",
    10: "has expired{expiry}; who runs {subject} has to renew it",
    18: "is signed by itself, and not by a CA that is trusted here; {ca_option} FILE with that certificate trusts it",
    19: "comes with a CA of its own, which is not trusted here; {ca_option} FILE says whom to trust",
    20: _UNKNOWN_CA,
    21: _UNKNOWN_CA,
    23: "was revoked",
    26: "is not for this use",
    62: "is not for this name; --sni NAME says what it should be for, if that is another one",
    64: "is not for this address; connect to a name that it is for, or say it with --sni NAME",
    66: _WEAK,
    67: _WEAK,
    68: _WEAK,
}


def _verification(failure: HandshakeFailure, error: ssl.SSLCertVerificationError, subject: str) -> str:
    words = error.verify_message.rstrip(".")
    expiry = _expiry(failure.certificate)
    rule = _RULES.get(error.verify_code, "is refused: {words}").format(
        words=words,
        subject=subject,
        ca_option="--client-ca" if failure.server else "--ca-file",
        expiry=f" on {expiry:%Y-%m-%d}" if expiry else "",
    )
    what, more, after = rule.partition("; ")
    checked = "" if failure.server else f" (it was checked for {failure.name!r})"
    return f"the certificate of {subject}{_description(failure.certificate)} {what}{checked}{more}{after}"


def _description(certificate: Certificate | None) -> str:
    """What the certificate says of itself; its fingerprint, where nobody can read it."""
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
    return f" [{_harmless('; '.join(parts))}; {digits}]"


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


def _harmless(text: str) -> str:
    """What a stranger wrote, so that it cannot talk to the terminal."""
    clean = "".join(character if character.isprintable() else "?" for character in text)
    return clean if len(clean) <= _LONGEST_DESCRIPTION else f"{clean[:_LONGEST_DESCRIPTION]}..."


# ------------------------------------------------------------------------------------------- files and OpenSSL's words

_SETUP_REASONS = {
    "KEY_VALUES_MISMATCH": "key and certificate do not belong together: --key FILE needs the key of --cert FILE",
    "EE_KEY_TOO_SMALL": "the key of our certificate is too short to be safe",
    "CA_KEY_TOO_SMALL": "the key of the CA of our certificate is too short to be safe",
    "CA_MD_TOO_WEAK": "our certificate is signed in a way that is not safe any more",
}


def _setup(error: ssl.SSLError) -> str:
    words = _SETUP_REASONS.get(_reason(error))
    if words:
        return words
    if "PEM lib" in str(error):
        return "the files of --cert and --key do not hold a certificate and its key in PEM"
    return _words(error).replace(
        ", and no password was given", "; decrypt it first: openssl pkey -in KEY -out NEW"
    )


def _words(error: ssl.SSLError) -> str:
    """OpenSSL's own words, without the place in the source of Python."""
    words = str(error.strerror or error)
    return re.sub(r"^\[[^]]*\] | \(_ssl\.c:\d+\)$", "", words)
