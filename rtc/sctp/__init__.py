"""SCTP over DTLS: chunks, reassembly and the association."""

__all__ = ["MAX_MESSAGE_BYTES"]

MAX_MESSAGE_BYTES = 4 << 20  # an event with a camera's picture as a data URL
