"""Training runs, from tables, records and schedulers."""
