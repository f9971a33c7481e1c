"""Sign publications that were made before the ledger had a key."""

from __future__ import annotations

import os
from pathlib import Path

from flows.errors import GateFailed, SettingsError, UsageError
from flows.publication.findings import Finding, Trust
from flows.publication.folders import is_regular, list_publications
from flows.publication.keys import check_keys, sign_manifest
from flows.publication.manifest import MANIFEST, SIGNATURE
from flows.publication.verify import verify_ledger
from flows.settings import FILE_NAME, Settings


def sign_ledger(settings: Settings, expected: str = "") -> list[str]:
    """Sign every unsigned publication with the key of [ledger], once the whole ledger is verified.

    Args:
        settings: The project.
        expected: Digest of the manifest of the last publication, if it is known from elsewhere.

    Returns:
        Ids of the publications that were signed now.

    Raises:
        SettingsError: there is no key, or it cannot be used.
        UsageError: nothing is published; a publication after a signed one is unsigned, and no digest is given.
        GateFailed: something is not as it was published. Nothing is signed then.
    """
    if not settings.ledger.signing_key:
        raise SettingsError(
            "there is no key to sign with",
            where=f"{FILE_NAME}, [ledger]",
            remedy="Set ledger.signing_key; docs/verification.md says how to make one",
        )
    check_keys(settings)
    findings = verify_ledger(settings, trust=Trust(expected=expected), every=True)
    failures = [
        finding
        for finding in findings
        if finding.ok is False and not _is_unsigned(settings, finding)
    ]
    folders = list_publications(settings)
    failures += [
        Finding(folder.name, "signature", SIGNATURE, False, "it is by another key")
        for folder in folders
        if is_regular(folder / SIGNATURE) and not _is_signed(settings, folder)
    ]
    if failures:
        first = failures[0]
        raise GateFailed(
            f"{len(failures)} checks failed, the first: {first.what}, {first.place}: {first.detail}",
            where=first.publication_id,
            remedy="Nothing was signed. `wattledger verify --all` names all of them",
        )
    unsigned = [folder for folder in folders if not is_regular(folder / SIGNATURE)]
    _refuse_unsigned_after_signed(folders, unsigned, expected)
    for folder in unsigned:
        _write_signature(settings, folder)
    return [folder.name for folder in unsigned]


def _is_unsigned(settings: Settings, finding: Finding) -> bool:
    """Whether what failed is that a publication has no signature, which is mended here."""
    signature = settings.publications / finding.publication_id / SIGNATURE
    return finding.what == "signature" and not os.path.lexists(signature)


def _is_signed(settings: Settings, folder: Path) -> bool:
    """Whether a signature is by the key of [ledger]: Ed25519 gives the same one every time."""
    return (folder / SIGNATURE).read_bytes() == sign_manifest(
        settings, (folder / MANIFEST).read_bytes()
    )


def _refuse_unsigned_after_signed(folders: list[Path], unsigned: list[Path], expected: str) -> None:
    """Refuse what `publish` would have signed: who signs it must know its digest from elsewhere."""
    signed = [place for place, folder in enumerate(folders) if folder not in unsigned]
    later = [folder for folder in unsigned if signed and folders.index(folder) > signed[0]]
    if later and not expected:
        raise UsageError(
            "it is unsigned, and one before it is signed: it may not be what was published",
            where=later[0].name,
            remedy="If you know from elsewhere that it is, give the digest of the last manifest: --expect",
        )


def _write_signature(settings: Settings, folder: Path) -> None:
    """Write a signature whole, or not at all."""
    signature = sign_manifest(settings, (folder / MANIFEST).read_bytes())
    assert signature is not None
    settings.work.mkdir(parents=True, exist_ok=True)
    half = settings.work / f"{folder.name}.sig"
    half.unlink(missing_ok=True)
    half.write_bytes(signature)
    half.chmod(0o444)
    with half.open("rb") as file:
        os.fsync(file.fileno())
    half.replace(folder / SIGNATURE)
