"""The hand-over of calls to another transceiver, and what goes on here for calls that are elsewhere."""
