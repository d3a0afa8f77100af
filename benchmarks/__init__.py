"""The numbers of this project, measured: ``python -m benchmarks`` in the root of the checkout.

Theory of operation. A *contestant* is a small program in a process of its own: it listens, says its port, does the
work for one connection, and says what that cost it. A *load* is the other end, the same for every contestant of a
work. In every round all contestants run, one after the other, so that a slow minute hits all of them; and what is
reported is a ratio of two contestants, taken round by round, never an absolute figure.

Every byte is checked, by the load where it can see all of it, else by the contestant's trial while the clock stands.
A contestant that returns others, or fewer, fails the run by its name.

* ``blocking``, ``asyncio_streams``, ``imports``: the contestants, each written as its own documentation says.
* ``_catalogue``: the works, and which contestants are compared, against what target.
* ``_driver``: rounds, processes, cores. ``_rows``: from readings to ratios. ``_report``: tables and JSON.
* ``_trial``, ``_load``, ``_payload``: what runs inside the processes.
"""
