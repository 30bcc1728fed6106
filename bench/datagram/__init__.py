"""The benchmark of a datagram: what receiving a frame of a call and sending one costs the transceiver's event loop.

Calls are connected in memory, with ICE and DTLS, and then each sends a frame of SRTP every 20 ms. Everything from the
link's socket to the messages that it sends is the transceiver's own; the worker is the other end of an ``inproc``
link, whose messages need no thread. Where the loop would wait, the next message comes, and time goes on.
"""
