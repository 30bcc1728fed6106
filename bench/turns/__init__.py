"""The benchmark of turn-taking: how soon an answer begins, and how soon it stops when it is spoken over."""
