"""The store: opened, migrated, locked, digested."""
