"""Supervision: a parent that starts processes and watches them, and what outlives each of them."""
