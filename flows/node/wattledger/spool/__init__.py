"""Readings on the node's disk, until they are fetched."""
