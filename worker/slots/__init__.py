"""Slots: leases are worked off, inputs laid out, children kept."""
