"""The media of one session: what comes, what is heard of it, what is said, and the reports about both."""
