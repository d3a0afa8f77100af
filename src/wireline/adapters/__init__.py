"""Adapters: wireline under the interfaces of other libraries. Each module imports its library and is an extra."""
