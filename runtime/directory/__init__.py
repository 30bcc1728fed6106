"""The directory's store: soft state that edges and transceivers of a cluster repeat, and read as a whole."""
