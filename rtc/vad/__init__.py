"""Voice detection: where a turn begins and ends."""
