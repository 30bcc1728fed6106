"""Voice detection: where a turn begins and where it ends."""
