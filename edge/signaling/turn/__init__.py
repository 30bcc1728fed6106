"""Relays for callers whose network lets nothing through but TCP: the ICE servers that clients are told of."""
