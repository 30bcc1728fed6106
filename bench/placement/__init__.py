"""The simulation of placement: a fleet, a day of calls, and the real placement code beside simpler ways."""
