"""Readings that never were: the demo's, and simulated fleets."""
