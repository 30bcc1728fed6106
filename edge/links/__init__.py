"""The links from signaling to the transceivers: requests, and the events of sessions."""
