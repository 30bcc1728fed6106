"""The register of metrics: each family that a process of firsthop has for Prometheus is defined once, here.

Collectors (``runtime.metrics``) are made of these definitions, ``docs/metrics.md`` is made of them (``make docs``), and
a test compares them with what the processes say.
"""
