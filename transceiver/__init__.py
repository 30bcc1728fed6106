"""The media server: it ends each call's WebRTC, and gives its sound to an agent."""

from transceiver import compiled

compiled.use()
