"""How many calls a transceiver lets in, beside how many it could serve."""
