"""Placement: which transceivers a new call should be offered to, in which order, and why. Pure.

``fleet`` keeps what transceivers report as columns, ``score`` says what a call would experience, ``placer`` draws.
"""
