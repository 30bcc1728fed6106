"""What each process needs: configuration, logs, metrics, supervision, and descriptors that outlive it."""
