"""The numbers of this project, measured: ``python -m benchmarks`` in the root of the checkout.

Theory of operation. A *contestant* is a small program in a process of its own: it listens, says its port, does the
work for one connection, and reports its cost. A *load* is the other end, the same for every contestant of a
work. In every round all contestants run, one after the other, so that a slow minute hits all of them. The
result is a ratio of two contestants, taken round by round, never an absolute figure.

Every byte is checked, by the load where it can see all of it, else by the contestant's trial while the clock stands.
A contestant that returns wrong bytes, or too few, fails the run by its name.

Three kinds of contestants. With one connection, the contestant itself holds the clock (``_work``). A server for many
connections is only asked for its CPU time, before and after; its load, in C, holds the clock and checks every byte
(``_service``). A client of a database holds the clock, too, and the other end is the database's server (``_client``).

* ``blocking``, ``net_blocking.nim``, ``asyncnet``, ``asyncio_streams``, ``imports``, ``servers``: the contestants, each
  written as its own documentation says.
* ``_catalogue``, ``_async_catalogue``, ``_tls_catalogue``, ``_pipelined_catalogue``, ``_growth_catalogue``: the works,
  and which contestants are compared, with the targets.
* ``_driver``: rounds. ``_process``: processes, cores. ``_rows``: from readings to ratios. ``_task``: a task in
  numbers. ``_report``: tables and JSON. ``_growth``: how the cost grows, as tables.
* ``_trial``, ``_load``, ``_payload``: the code inside the processes of the first kind.
* ``postgres_clients``, ``redis_clients``: the contestants of the third kind, compared in ``_drivers_catalogue``;
  ``_client_trial`` is in their processes, ``_database`` starts the server.
* ``command``: ``python -m benchmarks.command`` measures whole processes, the command beside netcat; it shares nothing
  with the others.
* ``_programs``, ``_build``: the programs of the second kind; ``load.c`` and ``_load_many`` are its load.
"""
