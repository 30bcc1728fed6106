"""Voice activity detectors side by side."""
