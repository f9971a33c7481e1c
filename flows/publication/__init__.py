"""The ledger of publications: figures are gated, sealed, put in force, verified and kept.

`publish` tells how a publication comes about, `verify` how it is checked.
"""
