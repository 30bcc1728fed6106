"""The links to the edges, and which session each datagram of them is for."""
