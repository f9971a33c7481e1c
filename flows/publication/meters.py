"""What meters signed: each signature that a publication names is checked again, with the key of its host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import duckdb

from flows.publication.findings import Finding
from flows.publication.manifest import list_tables
from flows.warehouse.frames import query_rows
from wattledger.spool.attest import Attestation

Chain = dict[int, Attestation]
"""Number -> what was signed under it."""


def check_signatures(con: duckdb.DuckDBPyConnection, publication_id: str) -> Iterator[Finding]:
    """Check signatures, keys and order of the signed segments that a publication names, host by host.

    Args:
        con: A connection with the figures attached as `published`.
        publication_id: The publication.
    """
    if not {"signed_segment", "host_key"} <= list_tables(con, "published"):
        return
    keys: dict[str, set[str]] = defaultdict(set)
    for row in query_rows(con, "SELECT host, public_key FROM published.host_key"):
        keys[row["host"]].add(row["public_key"])
    chains: dict[str, dict[str, Chain]] = defaultdict(lambda: defaultdict(dict))
    faults: dict[str, list[str]] = defaultdict(list)
    for row in query_rows(con, "FROM published.signed_segment ORDER BY host, segment_sequence"):
        told = _read_attestation(row)
        chain = chains[told.host][told.public_key]
        if told.sequence in chain:
            faults[told.host].append(f"number {told.sequence} stands twice")
        elif told.public_key not in keys[told.host]:
            faults[told.host].append(f"number {told.sequence} has a key that was not accepted")
        elif not told.is_genuine():
            faults[told.host].append(f"number {told.sequence} was not signed by its key")
        chain[told.sequence] = told
    for host in sorted(chains):
        found = faults[host] + [
            fault for chain in chains[host].values() for fault in _find_breaks(chain)
        ]
        more = f", and {len(found) - 3:,} more" if len(found) > 3 else ""
        yield Finding(publication_id, "meter", host, not found, "; ".join(found[:3]) + more)


def _read_attestation(row: dict[str, Any]) -> Attestation:
    return Attestation(
        str(row["host"]),
        int(row["segment_sequence"] or 0),
        str(row["segment_id"]),
        str(row["previous_sha256"]),
        str(row["public_key"]),
        str(row["signature"]),
    )


def _find_breaks(chain: Chain) -> Iterator[str]:
    """Numbers that do not follow the one before, where that is there."""
    for number, told in chain.items():
        before = chain.get(number - 1)
        if before is not None and before.sha256 != told.previous_sha256:
            yield f"number {number} does not follow number {number - 1}"
