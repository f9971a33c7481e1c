"""What verification finds, and what it may rely on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        publication_id: Of which publication.
        what: Kind of thing: manifest, signature, entry, chain, file, table, view, kept, warehouse, figures.
        place: Which one.
        ok: Whether it is as it should be; None where that cannot be checked here.
        detail: What is wrong, or why it cannot be checked.
    """

    publication_id: str
    what: str
    place: str
    ok: bool | None
    detail: str = ""

    def __post_init__(self) -> None:
        if self.ok:  # There is nothing to say about what is as it should be.
            object.__setattr__(self, "detail", "")


@dataclass(frozen=True)
class Trust:
    """What the verifier knows from elsewhere.

    Attributes:
        public_key: PEM file with the key that must have signed.
        expected: Digest of a manifest.
    """

    public_key: Path | None = None
    expected: str = ""
