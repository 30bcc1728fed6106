"""Hand-offs: a live session gets another agent, which is warmed beside the one that it has."""
