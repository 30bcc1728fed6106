"""Opus and G.711, resampling, and how much care an encoder may take."""
