"""Everything that moves data: sources, warehouse, Prefect flows, publication, command line."""

__version__ = "0.1.0"
