"""What verification finds, and what it may rely on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        publication_id: Of which publication.
        what: Kind of thing: manifest, signature, entry, chain, file, table, view, meter, kept, warehouse, figures.
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


NOT_COMPUTED = ("figures", "all")
"""What and where of a finding whose figures could not be computed again at all."""


def find_unverified(findings: Sequence[Finding]) -> Finding | None:
    """What keeps a verification in which no check failed from being one, if anything does.

    The figures of the publication that was asked for (of several, the last) must have been computed again.
    Those of older ones may be by methods that this version does not have.
    """
    last = [finding for finding in findings if finding.what == "figures"][-1:]
    return next(
        (
            finding
            for finding in last
            if finding.ok is None and (finding.what, finding.place) == NOT_COMPUTED
        ),
        None,
    )


@dataclass(frozen=True)
class Trust:
    """What the verifier knows from elsewhere.

    Attributes:
        public_key: PEM file with the key that must have signed.
        expected: Digest of the manifest of the publication that is verified.
    """

    public_key: Path | None = None
    expected: str = ""
