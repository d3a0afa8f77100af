"""The protocols of ``--starttls``. The parser needs their names, and not the dialogues."""

PROTOCOLS = (
    "smtp",
    "lmtp",
    "imap",
    "pop3",
    "sieve",
    "ftp",
    "nntp",
    "irc",
    "xmpp",
    "ldap",
    "postgres",
    "mysql",
)
