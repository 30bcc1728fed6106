"""SDP: the reader of offers, and the writer of answers."""
