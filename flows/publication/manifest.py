"""The manifest of a publication: what it consists of, by digest, chained to the one before, signed if asked.

Plain tools can check it: `sha256sum` for the files it names, `openssl pkeyutl` for the signature.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import duckdb

from flows.errors import SettingsError
from flows.files import hash_file
from flows.settings import Settings
from flows.warehouse.digests import digest_rows, digest_text
from flows.warehouse.frames import query_rows, quote_literal

MANIFEST, SIGNATURE = "manifest.json", "manifest.json.sig"
FORMAT = 1
_SOFTWARE = ("wattledger", "polars", "duckdb", "great-expectations", "pyarrow", "numpy")


def digest_entry(entry: Mapping[str, Any]) -> str:
    """The digest of a row of `publication`: its versions and digests, a line each, in this order."""
    return digest_text(*(f"{name} {entry[name]}" for name in _DIGESTED))


_DIGESTED = (
    "sequence",
    "method_version",
    "code_version",
    "code_digest",
    "settings_digest",
    "input_digest",
    "factor_digest",
    "validation_digest",
    "output_digest",
    "previous_digest",
)


def digest_to_chain(entry: Mapping[str, Any]) -> str | None:
    """The digest by which the next publication names this one: of its manifest.

    Of a publication from before there were manifests it is that of its row; None where there is no row.
    """
    return entry.get("manifest_sha256") or entry.get("digest")


def build_manifest(
    folder: Path, entry: Mapping[str, Any], database: duckdb.DuckDBPyConnection
) -> bytes:
    """Build the manifest of a publication.

    Args:
        folder: Where its files are.
        entry: Its row of `publication`.
        database: Its figures, open.
    """
    manifest = {
        "format": FORMAT,
        "publication": {name: value for name, value in entry.items() if name != "manifest_sha256"},
        "tables": digest_tables(database),
        "views": digest_views(database),
        "files": digest_files(folder),
        "software": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _SOFTWARE},
        },
    }
    return (json.dumps(manifest, indent=1, sort_keys=True, default=str) + "\n").encode()


def digest_tables(con: duckdb.DuckDBPyConnection) -> dict[str, dict[str, Any]]:
    """Rows and digest of every table of a database."""
    contents = {name: digest_rows(con, f'FROM "{name}"') for name in sorted(list_tables(con))}
    return {
        name: {"rows": content.rows, "sha256": content.sha256} for name, content in contents.items()
    }


def digest_views(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Digest of the text of every view of a database."""
    views = query_rows(
        con,
        "SELECT view_name, sql FROM duckdb_views() WHERE NOT internal AND schema_name = 'main' "
        "AND database_name = current_database() ORDER BY view_name",
    )
    return {view["view_name"]: digest_text(view["sql"]) for view in views}


def list_tables(con: duckdb.DuckDBPyConnection, database: str = "") -> set[str]:
    """Names of the tables of a database; of the current one, if none is named."""
    tables = con.execute(
        "SELECT table_name FROM duckdb_tables() WHERE NOT internal AND schema_name = 'main' "
        f"AND database_name = {quote_literal(database) if database else 'current_database()'}"
    ).fetchall()
    return {name for (name,) in tables}


def digest_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and digest of every file of a publication but its manifest and signature."""
    return {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hash_file(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST, SIGNATURE)
    }


def sign_manifest(settings: Settings, manifest: bytes) -> bytes | None:
    """The Ed25519 signature of a manifest with the key of [ledger], if there is one.

    Raises:
        SettingsError: the key cannot be read, or is of another kind.
    """
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
    return key.sign(manifest)


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
