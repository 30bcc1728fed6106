"""Steering in the kernel: the XDP program, its maps and pins, and its limits."""
