"""The entry of a publication in the ledger: the row that names it, and what belongs to it."""

from __future__ import annotations

from typing import Any

import duckdb

from flows import __version__
from flows.publication.gate import Decision
from flows.publication.manifest import digest_entry
from flows.warehouse.digests import (
    digest_code,
    digest_factors,
    digest_inputs,
    digest_outputs,
    digest_settings,
    digest_text,
)
from flows.warehouse.frames import query_rows
from flows.warehouse.locks import MOMENT
from transforms import METHOD_VERSION
from transforms.schema import TABLES

Entry = dict[str, Any]
"""A row of the table `publication`."""


def read_last_entry(con: duckdb.DuckDBPyConnection) -> Entry | None:
    """The entry of the last publication, if there is one."""
    entries = query_rows(con, "FROM publication ORDER BY sequence DESC LIMIT 1")
    return entries[0] if entries else None


def build_entry(
    con: duckdb.DuckDBPyConnection, last: Entry | None, decision: Decision, reason: str
) -> Entry:
    """Build the entry of the candidate, at the moment of the caller's transaction.

    Args:
        con: The warehouse, with the candidate.
        last: The entry before.
        decision: What the gate decided.
        reason: Why it is published, in words; may be empty.
    """
    sequence = last["sequence"] + 1 if last else 1
    [(sample,)] = con.execute("SELECT coalesce(bool_or(sample), false) FROM segment").fetchall()
    [(published_at,)] = con.execute(f"SELECT {MOMENT}").fetchall()
    settings = dict(con.execute("SELECT section, value_json FROM setting").fetchall())
    values = {
        "sequence": sequence,
        "published_at": published_at,
        "sample": sample,
        "method_version": METHOD_VERSION,
        "code_version": __version__,
        "input_digest": digest_inputs(con),
        "factor_digest": digest_factors(con),
        "validation_digest": _digest_decision(decision),
        "output_digest": digest_outputs(con),
        # One from before there were manifests is named by the digest of its row.
        "previous_digest": (last["manifest_sha256"] or last["digest"]) if last else "",
        "settings_digest": digest_settings(settings),
        "code_digest": digest_code(),
        "reason": reason or None,
        "manifest_sha256": None,
    }
    digest = digest_entry(values)
    values |= {"publication_id": f"{sequence:04d}-{digest[:8]}", "digest": digest}
    return {name: values[name] for name in TABLES["publication"].columns}


def _digest_decision(decision: Decision) -> str:
    results = (
        f"{verdict.suite.name} {result.check.name} {result.success} {result.unexpected}"
        for verdict in decision.verdicts
        for result in verdict.results
    )
    overridden = (
        f"{failure.name} {failure.override.by} {failure.override.reason}"
        for failure in decision.overridden
    )
    return digest_text(*results, *overridden)


def is_unchanged(con: duckdb.DuckDBPyConnection, last: Entry, entry: Entry) -> bool:
    """Whether a publication would say what the last one says, of the same evidence, and can be vouched for."""
    if not last["manifest_sha256"]:
        return False
    digests = ("input_digest", "factor_digest", "settings_digest", "output_digest")
    if any(last[name] != entry[name] for name in digests):
        return False
    rolled_up_since = con.execute(
        "SELECT 1 FROM rolled_up WHERE rolled_up_at > ? LIMIT 1", [last["published_at"]]
    ).fetchall()
    return not rolled_up_since


def list_overrides(entry: Entry, decision: Decision) -> list[dict[str, Any]]:
    """Rows of the table `gate_override` that belong to an entry."""
    return [
        {
            "publication_id": entry["publication_id"],
            "suite": failure.suite,
            "check_name": failure.result.check.name,
            "overridden_by": failure.override.by,
            "reason": failure.override.reason,
            "unexpected_rows": failure.result.unexpected,
            "recorded_at": entry["published_at"],
        }
        for failure in decision.overridden
    ]


def list_restatements(con: duckdb.DuckDBPyConnection, entry: Entry) -> list[dict[str, Any]]:
    """Rows of the table `restatement` that belong to an entry, from those staged."""
    staged = query_rows(con, "FROM staging.restatement")
    return [{"publication_id": entry["publication_id"], **row} for row in staged]
