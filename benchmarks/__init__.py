"""The numbers of this project, measured: ``python -m benchmarks`` in the root of the checkout.

Theory of operation. A *contestant* is a small program in a process of its own: it listens, says its port, does the
work for one connection, and says what that cost it. A *load* is the other end, the same for every contestant of a
work. In every round all contestants run, one after the other, so that a slow minute hits all of them; and what is
reported is a ratio of two contestants, taken round by round, never an absolute figure.

Every byte is checked, by the load where it can see all of it, else by the contestant's trial while the clock stands.
A contestant that returns others, or fewer, fails the run by its name.

Two kinds of contestants. With one connection, the contestant itself holds the clock (``_work``). A server for many
connections is only asked for its CPU time, before and after; its load, in C, holds the clock and checks every byte
(``_service``).

* ``blocking``, ``net_blocking.nim``, ``asyncnet``, ``asyncio_streams``, ``imports``, ``servers``: the contestants, each
  written as its own documentation says.
* ``_catalogue``, ``_async_catalogue``, ``_tls_catalogue``, ``_pipelined_catalogue``, ``_growth_catalogue``: the works,
  and which contestants are compared, against what target.
* ``_driver``: rounds. ``_process``: processes, cores. ``_rows``: from readings to ratios. ``_task``: what was done, in
  numbers. ``_report``: tables and JSON. ``_growth``: how the cost grows, as tables.
* ``_trial``, ``_load``, ``_payload``: what runs inside the processes of the first kind.
* ``_programs``, ``_build``: what is started for the second; ``load.c`` and ``_load_many`` are its load.
"""
