"""Descriptors, names, threads in the background and processes: every use of the operating system that does not wait."""
