"""SCTP over DTLS: chunks, reassembly and the association."""
