"""ICE: the lite agent that answers, the controlling agent that asks, and the bound on what unproved paths may draw."""
