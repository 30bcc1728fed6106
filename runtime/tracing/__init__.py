"""Tracing: spans of requests and sessions, which go to an OTLP endpoint (``[tracing]``).

Spans are made on the loops that serve calls, so making one costs a few microseconds: it is an object with its times and
attributes. A thread makes OpenTelemetry's spans of them, and sends these. Without an endpoint no span is made, and
nothing of OpenTelemetry is imported.
"""
