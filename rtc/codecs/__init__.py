"""Opus and G.711, resampling, and the choice of an encoder's effort."""
