"""DTLS and SRTP: certificates, fingerprints, flights and the transport over them."""
