"""Everything that moves data: sources, warehouse, Prefect flows, publication, command line."""

from wattledger import __version__

__all__ = ["__version__"]
