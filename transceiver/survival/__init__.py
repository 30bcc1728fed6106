"""What outlives a transceiver process: its calls' states in memory that the supervisor holds."""
