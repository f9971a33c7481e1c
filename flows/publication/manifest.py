"""The manifest of a publication: what it consists of, by digest, chained to the one before, signed if asked.

Plain tools can check it: `sha256sum` for the files it names, `openssl pkeyutl` for the signature.
"""

from __future__ import annotations

import json
import platform
import stat
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import duckdb

from flows.files import hash_file
from flows.publication.folders import is_folder, is_regular
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


def digest_to_chain(folder: Path) -> str | None:
    """The digest by which the next publication names this one: of its manifest; None where there is none."""
    manifest = folder / MANIFEST
    return hash_file(manifest) if is_regular(manifest) else None


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


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest, whoever wrote it.

    Returns:
        Its parts by name; `publication`, `files`, `tables` and `views` are there, as what they should be.

    Raises:
        ValueError: it is none; says why.
    """
    size = path.stat().st_size
    if size > _LARGEST_MANIFEST:
        raise ValueError(f"it has {size:,} bytes, more than any manifest")
    try:
        manifest = json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(manifest, dict):
        raise ValueError("it is no object")
    for part, kinds in _PARTS.items():
        values = manifest.get(part)
        if not isinstance(values, dict):
            raise ValueError(f"its {part} are missing or no object")
        for name, value in values.items():
            if not isinstance(value, kinds):
                raise ValueError(f"{part}: {name[:100]!r} is of another type")
    lacking = sorted({*_DIGESTED, "digest", "publication_id"} - manifest["publication"].keys())
    if lacking:
        raise ValueError(f"its publication lacks {lacking[0]}")
    return manifest


_LARGEST_MANIFEST = 64 << 20
"""Bytes; a project of many runs has some thousand files of 200 bytes each."""
_PARTS: dict[str, tuple[type, ...]] = {
    "publication": (str, int, float, type(None)),
    "files": (dict,),
    "tables": (dict,),
    "views": (str,),
}
"""Parts of a manifest, with the types of their values."""


def digest_tables(con: duckdb.DuckDBPyConnection, database: str = "") -> dict[str, dict[str, Any]]:
    """Rows and digest of every table of a database; of the current one, if none is named."""
    place = f"{database}.main." if database else ""
    contents = {
        name: digest_rows(con, f'FROM {place}"{name}"')
        for name in sorted(list_tables(con, database))
    }
    return {
        name: {"rows": content.rows, "sha256": content.sha256} for name, content in contents.items()
    }


def digest_views(con: duckdb.DuckDBPyConnection, database: str = "") -> dict[str, str]:
    """Digest of the text of every view of a database; of the current one, if none is named."""
    views = query_rows(
        con,
        "SELECT view_name, sql FROM duckdb_views() WHERE NOT internal AND schema_name = 'main' "
        f"AND database_name = {_name_database(database)} ORDER BY view_name",
    )
    return {view["view_name"]: digest_text(view["sql"]) for view in views}


def list_tables(con: duckdb.DuckDBPyConnection, database: str = "") -> set[str]:
    """Names of the tables of a database; of the current one, if none is named."""
    tables = con.execute(
        "SELECT table_name FROM duckdb_tables() WHERE NOT internal AND schema_name = 'main' "
        f"AND database_name = {_name_database(database)}"
    ).fetchall()
    return {name for (name,) in tables}


def _name_database(database: str) -> str:
    return quote_literal(database) if database else "current_database()"


def digest_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and digest of every file of a publication but its manifest and signature, by path.

    What is no file (a link, a pipe, a device, a folder with nothing in it) has its `kind` instead; nothing
    of that is opened or followed.
    """
    return {
        path.relative_to(folder).as_posix(): _digest_entry(path)
        for path in sorted(_walk(folder))
        if path not in (folder / MANIFEST, folder / SIGNATURE)
    }


_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "an empty folder",
}


def _walk(folder: Path) -> Iterator[Path]:
    """Everything below a folder but the folders that hold something."""
    folders = [folder]
    while folders:
        parent = folders.pop()
        try:
            inside = list(parent.iterdir())
        except OSError:  # Where nobody may look into it, the folder itself is named.
            inside = []
        if not inside:
            yield parent
        for path in inside:
            if is_folder(path):
                folders.append(path)
            else:
                yield path


def _digest_entry(path: Path) -> dict[str, Any]:
    kind = stat.S_IFMT(path.lstat().st_mode)
    if kind != stat.S_IFREG:
        return {"kind": _KINDS.get(kind, "no file")}
    try:
        return {"bytes": path.lstat().st_size, "sha256": hash_file(path)}
    except OSError:
        return {"kind": "a file that may not be read"}
