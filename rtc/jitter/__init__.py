"""The jitter buffer, and how long it waits."""
