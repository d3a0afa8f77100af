"""``--show-code``: the few lines of Python that do what a command line does."""
