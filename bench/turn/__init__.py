"""The benchmark of TURN: how much later packets come back over a relay than directly."""
