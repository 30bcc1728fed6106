"""The survival of calls: their states in memory that the supervisor holds outlive a transceiver process."""
