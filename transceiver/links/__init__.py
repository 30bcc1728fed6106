"""The links to the edges, and the routing of their datagrams to sessions."""
