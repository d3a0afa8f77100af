"""The servers that are measured: small programs, each written as its own documentation says.

    python -m benchmarks.servers.NAME ROLE [CERTIFICATE] [aiofastnet] [uvloop]

With a file that has a certificate and its key they use TLS. They listen on a free port of 127.0.0.1, write it as a
line of JSON, and serve every connection by the role: ``echo`` returns the received bytes, ``lines`` does so line
by line, ``lines-batch`` and ``lines-try`` return all lines of one receive together, ``greet`` sends a greeting.
For every line on their standard input they write a line of JSON with the CPU time that they have used, and when it ends
they end. Those in C and Nim do the same. All have TCP_NODELAY, which only those two and gevent have to ask for.
"""
