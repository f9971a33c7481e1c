"""Keys of the ledger: manifests are signed with the private one, and checked with the public one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows.errors import SettingsError
from flows.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def sign_manifest(settings: Settings, manifest: bytes) -> bytes | None:
    """The Ed25519 signature of a manifest with the key of [ledger], if there is one.

    Raises:
        SettingsError: the key cannot be read, or is of another kind.
    """
    key = _read_private_key(settings)
    return None if key is None else key.sign(manifest)


def check_keys(settings: Settings) -> None:
    """Check that the next publication can be signed, where publications of this project are.

    Raises:
        SettingsError: the key cannot be read, is of another kind, or is not the one that verification asks for.
    """
    key = _read_private_key(settings)
    if not settings.ledger.public_key:
        return
    path = settings.root / settings.ledger.public_key
    if key is None:
        raise SettingsError(
            "there is a public key, and no key to sign with: what is published would fail verification",
            where="wattledger.toml, [ledger]",
            remedy="Set ledger.signing_key, or publish where the key is",
        )
    if not is_signed_by(path, key.sign(b""), b""):
        raise SettingsError(
            "signing_key and public_key are no pair",
            where="wattledger.toml, [ledger]",
            remedy="Write the public half again: openssl pkey -in KEY -pubout",
        )


def _read_private_key(settings: Settings) -> Ed25519PrivateKey | None:
    """The key of [ledger] that signs; None if there is none."""
    if not settings.ledger.signing_key:
        return None
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = settings.root / settings.ledger.signing_key
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise _explain_key(path, str(error)) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _explain_key(path, "it is of another kind")
    return key


def is_signed_by(path: Path, signature: bytes, manifest: bytes) -> bool:
    """Whether the signature is by the Ed25519 key whose public part is in a PEM file.

    Raises:
        SettingsError: the key cannot be read, or is of another kind.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _explain_key(path, str(error)) from None
    if not isinstance(key, Ed25519PublicKey):
        raise _explain_key(path, "it is of another kind")
    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        return False
    return True


def _explain_key(path: Path, why: str) -> SettingsError:
    return SettingsError(
        f"cannot use the key: {why.splitlines()[0] if why else 'unreadable'}",
        where=str(path),
        remedy="It should be an Ed25519 key in PEM: openssl genpkey -algorithm ed25519; see "
        "docs/verification.md",
    )
