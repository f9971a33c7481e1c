"""Prefect: the flows, their schedules, servers and workers."""
