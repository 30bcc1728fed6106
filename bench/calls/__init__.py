"""The benchmark of calls: firsthop beside aiortc, FastRTC and Janus, under the same calls with the same voice.

::

    client host (core 0)                         edge host (core 1)
    load.py: N calls ──── veth ────  the server under test: ICE, DTLS, SRTP,
         Opus, 50 a second each →    decode and encode, or pass on
         ← what it says back         and back at once
"""
