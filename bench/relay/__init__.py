"""The benchmark of relaying: firsthop's edge beside nginx, coturn and the least that C can do, under the same load.

::

    client host                      edge host
    load.c ──── veth ────  relay (core 1) ──── backend (core 0)
            172 bytes →           → echo →
            ← 172 bytes           ← echo ←

Every datagram goes up through the relay and its echo comes back down through it. The backend stands on the edge
host, over what one host offers: ``ipc://`` for firsthop, UDP for the others.

Three have nobody between: ``direct`` is the backend alone, ``routed`` has the edge host's kernel forward to a host
behind it, and ``express`` has firsthop's XDP bring media to the backend's own socket, past the worker.
"""
