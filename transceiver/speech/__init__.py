"""The parts that agents which speak have in common."""
