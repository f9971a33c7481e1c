"""Secrets kept in Prefect's Secret blocks."""

from __future__ import annotations


def read_secret_block(name: str) -> str:
    """The secret in a Prefect Secret block.

    Raises:
        LookupError: there is no block of that name.
    """
    from prefect.blocks.system import Secret

    try:
        return str(Secret.load(name).get())  # type: ignore[union-attr]
    except ValueError:
        raise LookupError(name) from None
