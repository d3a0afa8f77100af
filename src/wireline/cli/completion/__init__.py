"""``wireline completion``: a script for each shell, made from the parsers."""
