"""The jitter buffer, and the length of its wait."""
