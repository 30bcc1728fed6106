"""The relay worker of one core: datagrams from the media socket to the transceivers, and back."""
