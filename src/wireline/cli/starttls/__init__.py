"""``--starttls``: the dialogue before TLS in protocols that start without it."""
