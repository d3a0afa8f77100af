"""The version of wireline."""

VERSION = "0.1.0"
"""The version in pyproject.toml; a test compares them. ``importlib.metadata`` would take most of the start-up time."""
