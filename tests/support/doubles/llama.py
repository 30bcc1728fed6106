"""llama.cpp's own HTTP server with the small language model, as a program: it prints the server's URL, and ends with
its standard input."""

from __future__ import annotations

import os
import sys

import xllamacpp

from transceiver.engine.weights import MIND


def main() -> None:
    """The server, at a port that the kernel chooses."""
    params = xllamacpp.CommonParams()
    params.model.path = str(MIND.first)
    params.n_ctx, params.n_parallel = 1024, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup, params.verbosity = False, 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
