"""Signaling over HTTP and WebSocket: an SDP offer becomes an answer whose only candidate is this edge's shared port,
and events go both ways between a WebSocket and the transceiver that has its session.

A process of its own, without privileges (``python -m edge.signaling``). A call's id carries the transceiver that holds
it, and an ephemeral key carries what it allows, so there is no table that a request needs.
"""
