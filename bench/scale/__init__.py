"""The benchmark of scale: what a call costs with several workers and transceivers, beside one of each, at the same
number of calls for each transceiver.

A worker has calls of every transceiver, so with both numbers grow the links between them and shrink the batches on
each. Where media goes past the workers there are no such links.
"""
