"""Providers of grid data, each a small module behind the protocol of `base`."""
