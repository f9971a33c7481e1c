"""Segments that their hosts signed: checked, pinned to the host's key on first sight, numbered without holes.

A key is believed on first sight, and from then on it alone speaks for its host: a segment with another key,
without one, of another number or out of its chain is refused, and named.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from flows.errors import BadInput, WarehouseBusy
from flows.files import name_for_people
from flows.warehouse.frames import insert, query_rows
from flows.warehouse.locks import MOMENT, transaction
from wattledger.spool.attest import Attestation, attestation_of, load_attestation

FIRST_SIGHT = "first sight"
"""Who accepted a key that nobody looked at."""


@dataclass(frozen=True)
class Hole:
    """Segments of a host that are missing in its chain."""

    host: str
    first: int
    missing: int

    def __str__(self) -> str:
        return (
            f"{self.missing:,} signed segments of {self.host} are missing (the first is number {self.first}): "
            "they may still arrive, or were lost or taken away"
        )


class Attestations:
    """What the warehouse knows of keys and chains, and what is loaded beside it."""

    def __init__(self, con: duckdb.DuckDBPyConnection, fetched: Path | None = None) -> None:
        """Know the keys and chains of a warehouse.

        Args:
            con: The warehouse.
            fetched: Folder of what was fetched from other meters, which sign nothing.
        """
        self._con, self._fetched = con, fetched
        self._keys: dict[str, str] = dict(
            con.execute("SELECT host, public_key FROM host_key ORDER BY accepted_at").fetchall()
        )
        self._chains: dict[tuple[str, str], dict[int, tuple[str, str]]] = {}
        """Host and key -> number -> digest, and digest of the one before."""
        self._gpus: dict[str, str] | None = None
        self._new: list[dict[str, Any]] = []
        self._pinned: list[dict[str, Any]] = []

    def check(self, path: Path, digest: str) -> list[str]:
        """Check a segment against its attestation, and what is known of its host.

        Args:
            path: The segment.
            digest: Its SHA-256.

        Returns:
            Sentences for people: a key that was seen for the first time.

        Raises:
            BadInput: it is forged, replayed, out of its chain, or not signed though its host signs.
        """
        attestation = _read_attestation(path)
        if attestation is None:
            is_fetched = self._fetched is not None and path.is_relative_to(self._fetched)
            if self._keys and not is_fetched:
                self._refuse_unsigned(path)
            return []
        self._check_attestation(path, digest, attestation)
        self._check_devices(path, attestation.host)
        said = self._pin(attestation)
        self._remember(attestation)
        return said

    def _refuse_unsigned(self, path: Path) -> None:
        """Refuse a segment without signature that tells of a host that signs, or of its GPUs."""
        for host in self._list_hosts(path):
            if host in self._keys:
                raise _refuse(
                    path,
                    f"it is not signed, but the collector of {host} signs its segments",
                    f"If its attestation was left behind, bring {attestation_of(path).name}; else it is not "
                    f"{host}'s",
                )

    def _check_attestation(self, path: Path, digest: str, told: Attestation) -> None:
        if told.sha256 != digest:
            raise _refuse(path, "its bytes are not those that were signed", "Copy the file again")
        if not told.is_genuine():
            raise _refuse(
                path, f"its signature is not that of the key of {told.host}", "It is forged"
            )
        pinned = self._keys.get(told.host, told.public_key)
        if pinned != told.public_key:
            raise _refuse(
                path,
                f"it is signed with another key ({told.public_key[:16]}…) than that of {told.host} "
                f"({pinned[:16]}…)",
                f"If the node was set up anew: wattledger accept-key {told.host} {told.public_key} --because ...",
            )
        chain = self._read_chain(told.host, told.public_key)
        known = chain.get(told.sequence)
        if known is not None and known != (told.sha256, told.previous_sha256):
            raise _refuse(
                path,
                f"number {told.sequence} of {told.host} is another segment ({known[0][:12]}…)",
                "It was replayed under a number that was taken, or the node's key was restored from a copy",
            )
        before, after = chain.get(told.sequence - 1), chain.get(told.sequence + 1)
        is_first = told.sequence == 1
        if (
            (before is not None and before[0] != told.previous_sha256)
            or (after is not None and after[1] != told.sha256)
            or is_first != (told.previous_sha256 == "")
        ):
            raise _refuse(
                path,
                f"number {told.sequence} of {told.host} does not follow the segment before it",
                "It was reordered, or belongs to another chain",
            )

    def _check_devices(self, path: Path, host: str) -> None:
        """Refuse a segment that tells of another host than the one that signed it."""
        others = sorted(self._list_hosts(path) - {host})
        if others:
            raise _refuse(path, f"{host} signed it, but it tells of {others[0]}", "It is forged")

    def _list_hosts(self, path: Path) -> set[str]:
        """The hosts of a segment, and those whose GPUs it tells of, as far as these sign."""
        frame = pl.scan_parquet(path, glob=False)
        names = frame.collect_schema().names()
        hosts = {str(host) for host in frame.select("host").unique().collect()["host"] if host}
        if "gpu_uuid" in names:
            if self._gpus is None:
                rows = self._con.execute("SELECT gpu_uuid, host FROM gpu").fetchall()
                self._gpus = dict(rows)
            uuids = frame.select("gpu_uuid").unique().collect()["gpu_uuid"]
            owners = {self._gpus[uuid] for uuid in uuids if uuid in self._gpus}
            hosts |= {owner for owner in owners if owner in self._keys}
        return hosts

    def _pin(self, told: Attestation) -> list[str]:
        if told.host in self._keys:
            return []
        self._keys[told.host] = told.public_key
        self._pinned.append(
            {
                "host": told.host,
                "public_key": told.public_key,
                "reason": "the first segment that it signed",
                "accepted_by": FIRST_SIGHT,
            }
        )
        return [
            f"the key of {told.host} is {told.public_key}: seen for the first time, and the only one from now on"
        ]

    def _read_chain(self, host: str, key: str) -> dict[int, tuple[str, str]]:
        if (host, key) not in self._chains:
            rows = self._con.execute(
                "SELECT segment_sequence, segment_id, previous_sha256 FROM signed_segment "
                "WHERE host = $host AND public_key = $key",
                {"host": host, "key": key},
            ).fetchall()
            self._chains[host, key] = {number: (sha, before) for number, sha, before in rows}
        return self._chains[host, key]

    def _remember(self, told: Attestation) -> None:
        chain = self._read_chain(told.host, told.public_key)
        if told.sequence in chain:
            return
        chain[told.sequence] = told.sha256, told.previous_sha256
        self._new.append(
            {
                "segment_id": told.sha256,
                "host": told.host,
                "public_key": told.public_key,
                "segment_sequence": told.sequence,
                "previous_sha256": told.previous_sha256,
                "signature": told.signature,
            }
        )

    def save(self) -> list[Hole]:
        """Store new keys and numbers; returns the holes in the chains that they belong to."""
        touched = {(row["host"], row["public_key"]) for row in self._new}
        if self._new or self._pinned:
            with transaction(self._con):
                pinned, new = self._leave_out_stored()
                if pinned:
                    insert(self._con, "host_key", pinned, accepted_at=MOMENT)
                if new:
                    insert(self._con, "signed_segment", new, loaded_at=MOMENT)
        self._new, self._pinned = [], []
        chains = ((host, self._chains[host, key]) for host, key in sorted(touched))
        return [hole for host, chain in chains if (hole := find_hole(host, chain)) is not None]

    def _leave_out_stored(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Keys and numbers that no other process has stored meanwhile (inside a transaction).

        Raises:
            WarehouseBusy: another process has stored others in their place.
        """
        now = Attestations(self._con)
        pinned = [row for row in self._pinned if row["host"] not in now._keys]
        new = []
        for row in self._new:
            chain = now._read_chain(row["host"], row["public_key"])
            entry = row["segment_id"], row["previous_sha256"]
            if chain.get(row["segment_sequence"], entry) != entry or (
                now._keys.get(row["host"], row["public_key"]) != row["public_key"]
            ):
                raise WarehouseBusy(
                    f"another process has loaded other segments of {row['host']} meanwhile",
                    remedy="Load the files again",
                )
            if row["segment_sequence"] not in chain:
                new.append(row)
        return pinned, new


def find_hole(host: str, numbers: Iterable[int]) -> Hole | None:
    """What is missing between the first number of a chain, which is 1, and the last that came."""
    present = set(numbers)
    missing = max(present) - len(present)
    if not missing:
        return None
    first = next(number for number in range(1, len(present) + 2) if number not in present)
    return Hole(host, first, missing)


def _read_attestation(path: Path) -> Attestation | None:
    place = attestation_of(path)
    if not os.path.lexists(place):
        return None
    try:
        return load_attestation(place)
    except (OSError, ValueError) as error:
        raise _refuse(
            path, f"its attestation cannot be used: {error}", "Copy both files again"
        ) from None


def _refuse(path: Path, reason: str, remedy: str) -> BadInput:
    return BadInput(reason, where=name_for_people(path), remedy=remedy)


def accept_key(con: duckdb.DuckDBPyConnection, host: str, key: str, by: str, reason: str) -> str:
    """Accept another key for a host, whose collector was set up anew; returns the key before, if there was one.

    Args:
        con: The warehouse, open for writing.
        host: The host.
        key: Its new public key, in hexadecimal.
        by: Who says so.
        reason: Why.

    Raises:
        BadInput: it is no key, or the one that counts already.
    """
    try:
        is_key = len(bytes.fromhex(key)) == 32
    except ValueError:
        is_key = False
    if not is_key:
        raise BadInput("not an Ed25519 public key in hexadecimal", where=key[:80])
    rows = query_rows(
        con,
        "SELECT public_key FROM host_key WHERE host = $host ORDER BY accepted_at DESC LIMIT 1",
        {"host": host},
    )
    before = rows[0]["public_key"] if rows else ""
    if before == key.lower():
        raise BadInput(f"it is the key of {host} already", where=key)
    row = {"host": host, "public_key": key.lower(), "reason": reason, "accepted_by": by}
    with transaction(con):
        insert(con, "host_key", [row], accepted_at=MOMENT)
    return str(before)
