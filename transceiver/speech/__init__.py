"""What agents that speak have in common."""
