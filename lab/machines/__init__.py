"""Debian hosts with systemd on one machine: containers that boot, joined by a bridge, for units and rollout."""
