"""Readings in the warehouse become energy, carbon and water of runs."""
