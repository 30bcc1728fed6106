"""Transcripts and recordings: what the media loop hands over, and the process that writes it."""
