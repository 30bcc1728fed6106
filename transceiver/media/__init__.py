"""The media of one session: what is received, what is heard of it, what is said, and the reports about both."""
