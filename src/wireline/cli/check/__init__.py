"""``wireline check``."""
