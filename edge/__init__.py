"""The edge host: the supervisor owns sockets and XDP, workers relay datagrams, signaling answers HTTP.

Nothing here decrypts or keeps WebRTC state, and nothing here imports ``transceiver``.
"""
