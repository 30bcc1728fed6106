"""The parts that every process needs: configuration, logs, metrics, supervision, and descriptors that outlive it."""
