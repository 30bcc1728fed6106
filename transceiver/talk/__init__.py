"""The agent of a session, its conversation, and the channels that lead to it."""
