"""Every use of the operating system that does not wait: descriptors, host names, background threads, processes."""
