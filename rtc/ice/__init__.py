"""ICE: the lite agent that answers, the controlling agent that asks, and what unproved paths may draw."""
