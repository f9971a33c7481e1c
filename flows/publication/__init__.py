"""The ledger: figures checked, sealed, verified, kept."""
