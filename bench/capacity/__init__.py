"""The benchmark of capacity: the calls that a transceiver lets in, beside the most that it could serve."""
