"""Readings of GPUs, from the logs and services that have them."""
