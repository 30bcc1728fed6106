"""The ``firsthop`` command, and what each process needs to be run and watched: configuration, logs, metrics."""
