"""Stand-ins for what is too heavy, or too well, for most tests."""
