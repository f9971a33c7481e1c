"""`python -m bench.mutations`: change one thing of a ledger at a time, and see whether verification finds it.

A small project of every kind of input is published twice, signed, and packed. Then, one at a time: a value in every
column of every table of the warehouse and of what was published (another one, or none), a row less, twice or more,
every kind of file (a bit, cut, longer, other, gone, a link), every field of the manifests, signatures, the link to
what is in force, members of a bundle. Each must be named by a check that fails. What is outside of verification is
`OUTSIDE`, which docs/verification.md explains.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flows import settings as settings_module
from flows.accounting.compute import compute
from flows.errors import WattledgerError
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.runs import ingest_runs
from flows.publication.bundle import verify_bundle, write_bundle
from flows.publication.findings import Finding, Trust
from flows.publication.publish import publish_candidate
from flows.publication.verify import verify_ledger
from flows.samples import host
from flows.samples.host import Work
from flows.settings import Settings
from flows.sources.gpu import segments
from flows.sources.gpu.segments import HOST_COLUMNS
from flows.warehouse.store import open_for_writing, store_of

OUTSIDE: set[tuple[str, str]] = {
    # When a migration was applied, nothing else tells.
    ("schema_migration", "applied_at"),
    # By which rule readings were reduced: where it is another one, they are reduced again.
    ("reduced_segment", "max_gap_us"),
    # What serialises writers says nothing about figures.
    ("ledger_clock", "*"),
    ("turn_load", "*"),
    ("turn_figures", "*"),
}
"""Tables and columns of the warehouse that verification says nothing about: `*` is a whole table."""
_ROWS_INSIDE = {
    "validation_run": "validation_id IN (SELECT validation_id FROM published.validation_run)",
    "validation_result": "validation_id IN (SELECT validation_id FROM published.validation_run)",
}
"""Table of the warehouse -> which of its rows verification looks at: verdicts on files are not published."""

_START = datetime(2024, 5, 1, 12, tzinfo=UTC)
_SETTINGS = """
[ledger]
signing_key = "ledger.pem"
public_key = "ledger.pub.pem"
[[site]]
name = "main"
zone = "XX"
pue = { value = 1.2, low = 1.1, high = 1.3 }
wue_l_per_kwh = { value = 0.5, low = 0.2, high = 1.0 }
[zones.XX]
fallback_intensity_g_per_kwh = 300
ewif_l_per_kwh = 2
[[tariff]]
site = "main"
price_per_kwh = 0.2
"""
_RUNS = """run_id,started_at,ended_at,host,gpu,share,model,family,phase,functional_unit,functional_units
r1,2024-05-01T12:05:00Z,2024-05-01T12:15:00Z,node01,all,1,llm,llm,training,token,2e6
r2,2024-05-01T12:00:00Z,2024-05-01T12:05:00Z,node01,0,0.5,llm,llm,development,,
"""
_ROWS = {
    "grid_fetch": "SELECT 'f', 'p', 'XX', now(), now(), 'fetched', '', now(), now(), 1, 2, 3",
    "second_meter": "SELECT 'codecarbon', 'r1', '', now(), now(), 1, 2, 3, 1",
    "meter_reading": "SELECT 'pdu', 'host', 'node01', now(), now() + INTERVAL 1 HOUR, 5, 'f', 1",
    "collector_event": "SELECT 'node01', NULL, now(), 'lost', '', 1",
    "gpu_instance": "SELECT 'mig', 'node01/gpu0', 500000",
    "quarantine": "SELECT 'ab', 'f', 's', 'r', 'k', now()",
    "quarantined_row": "SELECT segment_id, 1, 'r', 'f', 'v', now() FROM segment LIMIT 1",
    "run_record": "SELECT 'r', 'r1', 'node01', now(), NULL, NULL, '{}', 'f', now(), 1, true, 'd'",
}
"""Table -> a row of it, where a project without collectors and providers has none."""
_OTHER = {
    "BOOLEAN": "NOT coalesce({0}, false)",
    "VARCHAR": "coalesce({0}, '') || 'x'",
    "TIMESTAMP WITH TIME ZONE": "coalesce({0}, TIMESTAMPTZ '2024-01-01') + INTERVAL 1 MICROSECOND",
    "DOUBLE": "nextafter(coalesce({0}, 0), 1e300::DOUBLE)",
}
"""The smallest change to a value of a type; of whole numbers, one more."""


@dataclass(frozen=True)
class Mutation:
    """One change: what it is called, and what makes it.

    Attributes:
        kind: Of which kind: warehouse, published, file, manifest, signature, link, bundle.
        name: What is changed, and how.
        path: The file or folder that is put back afterwards.
        change: Makes the change; gives False where it cannot be made.
    """

    kind: str
    name: str
    path: Path
    change: Callable[[], bool | None]


@dataclass(frozen=True)
class Ledger:
    """A project that is published and packed, to be changed and put back."""

    settings: Settings
    bundle: Path

    @property
    def trust(self) -> Trust:
        return Trust(self.settings.root / "ledger.pub.pem")

    @property
    def last(self) -> Path:
        return self.settings.published.resolve()


def make_ledger(folder: Path) -> Ledger:
    """Make a project of every kind of input, published twice and packed."""
    folder.mkdir(parents=True)
    key = Ed25519PrivateKey.generate()
    (folder / "ledger.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (folder / "ledger.pem").chmod(0o600)
    (folder / "ledger.pub.pem").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    (folder / "wattledger.toml").write_text(_SETTINGS)
    settings = settings_module.load(folder)
    _load_inputs(settings)
    compute(settings)
    publish_candidate(settings)
    _write_grid(folder / "grid2.csv", 310)
    ingest_grid(settings, [folder / "grid2.csv"])
    with open_for_writing(store_of(settings)) as con:
        for table, row in _ROWS.items():
            if not con.execute(f"FROM {table} LIMIT 1").fetchall():
                con.execute(f"INSERT INTO {table} {row}")
    compute(settings)
    publish_candidate(settings)
    bundle = write_bundle(settings, "r1", target=folder / "r1.zip").path
    return Ledger(settings, bundle)


def _load_inputs(settings: Settings) -> None:
    folder = settings.root
    readings = host.generate_host_readings(
        "node01", gpus=2, start=_START, seconds=1200, work=[Work((0, 1), 300, 900)], seed=3
    )
    segments.write(readings, folder / "node01.parquet")
    intervals = [
        ("node01", _START + timedelta(seconds=60 * (i + 1)), 60_000_000, part, mj, False, "RAPL")
        for i in range(20)
        for part, mj in (("cpu", 12_000_000), ("dram", 1_200_000))
    ]
    pl.DataFrame(intervals, schema=HOST_COLUMNS, orient="row").sort(
        "component", "ts"
    ).write_parquet(folder / "node01.host.parquet")
    _write_grid(folder / "grid.csv", 300)
    (folder / "runs.csv").write_text(_RUNS)
    ingest_gpu(settings, [folder / "node01.parquet", folder / "node01.host.parquet"])
    ingest_grid(settings, [folder / "grid.csv"])
    ingest_runs(settings, [folder / "runs.csv"])


def _write_grid(path: Path, value: int) -> None:
    lines = [
        f"XX,{(_START + timedelta(minutes=30 * i)).isoformat()},{value + i}" for i in range(-2, 4)
    ]
    path.write_text("\n".join(["zone,valid_from,intensity_g_per_kwh", *lines]) + "\n")


def list_mutations(ledger: Ledger, seed: int) -> list[Mutation]:
    """List every change, in an order that the seed decides."""
    chance = random.Random(seed)
    warehouse = ledger.settings.root / "warehouse.duckdb"
    mutations = [
        *_list_of_tables("warehouse", warehouse, ledger.last, chance),
        *_list_of_tables("published", ledger.last / "published.duckdb", ledger.last, chance),
        *_list_of_files(ledger, chance),
        *_list_of_manifests(ledger, chance),
        *_list_of_links(ledger),
        *_list_of_members(ledger, chance),
    ]
    chance.shuffle(mutations)
    return mutations


def _list_of_tables(kind: str, path: Path, last: Path, chance: random.Random) -> Iterator[Mutation]:
    chosen = {}
    with closing(duckdb.connect()) as con:
        con.execute(f"ATTACH '{path}' AS store (READ_ONLY)")
        if kind == "warehouse":
            con.execute(f"ATTACH '{last / 'published.duckdb'}' AS published (READ_ONLY)")
        con.execute("USE store")
        tables = con.execute(
            "SELECT table_name, estimated_size FROM duckdb_tables() WHERE database_name = 'store' ORDER BY ALL"
        ).fetchall()
        columns = {table: con.execute(f"DESCRIBE {table}").fetchall() for table, _ in tables}
        for table, _ in tables:
            inside = _ROWS_INSIDE.get(table, "true") if kind == "warehouse" else "true"
            rowids = con.execute(
                f"SELECT rowid FROM {table} WHERE {inside} ORDER BY rowid"
            ).fetchall()
            chosen[table] = chance.choice(rowids)[0] if rowids else None
    for table, _ in tables:
        if (table, "*") in OUTSIDE and kind == "warehouse":
            continue
        row = f"rowid = {chosen[table]}"
        names = [name for name, *_ in columns[table]]
        if chosen[table] is not None:
            for name, sql_type, *_ in columns[table]:
                if (table, name) in OUTSIDE and kind == "warehouse":
                    continue
                other = _OTHER.get(sql_type, "coalesce({0}, 0) + 1").format(name)
                for how, value in (("another", other), ("none", "NULL")):
                    where = f"{row} AND {name} IS NOT NULL" if how == "none" else row
                    statement = f"UPDATE {table} SET {name} = {value} WHERE {where}"
                    yield _execute(kind, path, f"{table}.{name} {how}", statement)
            yield _execute(kind, path, f"{table} row deleted", f"DELETE FROM {table} WHERE {row}")
            doubled = f"INSERT INTO {table} SELECT * FROM {table} WHERE {row}"
            yield _execute(kind, path, f"{table} row doubled", doubled)
            changed = [
                f"{_OTHER.get(t, 'coalesce({0}, 0) + 1').format(n)} AS {n}"
                for n, t, *_ in columns[table][:2]
            ]
            if kind == "warehouse" and table in _ROWS_INSIDE:
                continue  # It is a verdict that was not published.
            added = f"INSERT INTO {table} SELECT {', '.join([*changed, *names[2:]])} FROM {table} WHERE {row}"
            yield _execute(kind, path, f"{table} row added", added)
        elif not (kind == "warehouse" and table in _ROWS_INSIDE):
            values = [
                _OTHER.get(t, "coalesce({0}, 0) + 1").format(f"NULL::{t}")
                for _, t, *_ in columns[table]
            ]
            added = f"INSERT INTO {table} SELECT {', '.join(values)}"
            yield _execute(kind, path, f"{table} first row", added)


def _execute(kind: str, path: Path, name: str, statement: str) -> Mutation:
    def change() -> bool:
        path.chmod(0o644)
        with closing(duckdb.connect(str(path))) as con:
            con.execute("SET TimeZone = 'UTC'")
            try:
                return bool(con.execute(statement).fetchall()[0][0])
            except duckdb.ConstraintException:
                return False

    return Mutation(kind, name, path, change)


def _list_of_files(ledger: Ledger, chance: random.Random) -> Iterator[Mutation]:
    by_kind: dict[tuple[str, str], Path] = {}
    for path in sorted(ledger.settings.publications.rglob("*")):
        if path.is_file():
            by_kind.setdefault((path.relative_to(ledger.settings.publications).parts[0], path.name if path.suffix in (".duckdb", ".sig", ".json") else path.suffix), path)  # fmt: skip
    for path in by_kind.values():
        shown = path.relative_to(ledger.settings.publications)
        for how, change in _ways_to_change(path, chance).items():
            yield Mutation("file", f"{shown} {how}", path, change)
    for folder in sorted(ledger.settings.publications.iterdir()):
        for how, add in {
            "file": lambda path: path.write_text("x"),
            "folder": lambda path: path.mkdir(),
            "pipe": lambda path: os.mkfifo(path),
            "link": lambda path: path.symlink_to("/etc/hostname"),
        }.items():
            for place in ("extra", "data_docs/extra", "published.duckdb.wal"):
                path = folder / place
                yield Mutation(
                    "file", f"{folder.name}/{place} added: {how}", path, _adding(add, path)
                )


def _adding(add: Callable[[Path], object], path: Path) -> Callable[[], None]:
    def change() -> None:
        add(path)

    return change


def _ways_to_change(path: Path, chance: random.Random) -> dict[str, Callable[[], None]]:
    data = path.read_bytes()
    place = chance.randrange(len(data))
    flipped = data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]

    def link() -> None:
        outside = path.parents[2] / "moved"
        shutil.move(path, outside)
        path.symlink_to(outside)

    return {
        "flipped": _writing(path, flipped),
        "cut": _writing(path, data[:-1]),
        "halved": _writing(path, data[: len(data) // 2]),
        "longer": _writing(path, data + b"\n"),
        "other": _writing(path, b"x" * len(data)),
        "empty": _writing(path, b""),
        "gone": path.unlink,
        "link": link,
    }


def _list_of_manifests(ledger: Ledger, chance: random.Random) -> Iterator[Mutation]:
    for folder in sorted(ledger.settings.publications.iterdir()):
        path = folder / "manifest.json"
        manifest = json.loads(path.read_bytes())
        for part, values in manifest.items():
            names = sorted(values) if isinstance(values, dict) else [""]
            for name in names if len(names) < 40 else chance.sample(names, 40):
                for how in ("other", "gone"):
                    changed = json.loads(json.dumps(manifest))
                    _change_field(changed, part, name, how)
                    data = (json.dumps(changed, indent=1, sort_keys=True) + "\n").encode()
                    yield Mutation(
                        "manifest", f"{folder.name} {part}.{name} {how}", path, _writing(path, data)
                    )


def _change_field(manifest: dict[str, Any], part: str, name: str, how: str) -> None:
    holder, key = (manifest[part], name) if name else (manifest, part)
    if how == "gone":
        del holder[key]
    elif isinstance(holder[key], dict):
        holder[key] = {**holder[key], "sha256": "0" * 64}
    else:
        holder[key] = f"{holder[key]}0"


def _writing(path: Path, data: bytes) -> Callable[[], None]:
    def change() -> None:
        path.chmod(0o644)
        path.write_bytes(data)

    return change


def _list_of_links(ledger: Ledger) -> Iterator[Mutation]:
    link = ledger.settings.published
    first, last = sorted(ledger.settings.publications.iterdir())[:2]

    def to(target: str) -> Callable[[], None]:
        def change() -> None:
            link.unlink()
            link.symlink_to(target)

        return change

    def copy() -> None:
        link.unlink()
        shutil.copytree(last, link)

    yield Mutation("link", "to the first", link, to(f"publications/{first.name}"))
    yield Mutation("link", "to nowhere", link, to("publications/0009-00000000"))
    yield Mutation("link", "a copy of the folder", link, copy)
    yield Mutation("link", "gone", link, link.unlink)
    yield Mutation("link", "first publication gone", first, lambda: shutil.rmtree(first))
    yield Mutation("link", "last publication gone", last, lambda: shutil.rmtree(last))


def _list_of_members(ledger: Ledger, chance: random.Random) -> Iterator[Mutation]:
    with zipfile.ZipFile(ledger.bundle) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def repack(changed: dict[str, bytes]) -> Callable[[], None]:
        def change() -> None:
            with zipfile.ZipFile(ledger.bundle, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, data in changed.items():
                    archive.writestr(name, data)

        return change

    for name, data in members.items():
        place = chance.randrange(len(data))
        ways = {
            "flipped": data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :],
            "cut": data[:-1],
            "longer": data + b" ",
        }
        for how, content in ways.items():
            changed = {**members, name: content}
            yield Mutation("bundle", f"{name} {how}", ledger.bundle, repack(changed))
        without = {other: content for other, content in members.items() if other != name}
        yield Mutation("bundle", f"{name} gone", ledger.bundle, repack(without))
    for name in ("extra", "publication/extra", "ledger/0009-00000000/manifest.json"):
        yield Mutation("bundle", f"{name} added", ledger.bundle, repack({**members, name: b"{}"}))


@contextmanager
def _put_back(path: Path) -> Iterator[None]:
    """Put a file or folder back as it is now, whatever becomes of it."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept"
        there = os.path.lexists(path)
        if path.is_symlink():
            kept.symlink_to(path.readlink())
        elif path.is_dir():
            shutil.copytree(path, kept, symlinks=True)
        elif there:
            shutil.copy2(path, kept)
        try:
            yield
        finally:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif os.path.lexists(path):
                path.unlink()
            if there:
                shutil.move(kept, path)


def try_mutation(ledger: Ledger, mutation: Mutation) -> str | None:
    """Make a change, verify, and put it back.

    Returns:
        What was named; empty where nothing was; None where the change cannot be made.
    """
    with _put_back(mutation.path):
        if mutation.change() is False:
            return None
        try:
            found: Iterator[Finding] = (
                verify_bundle(ledger.bundle, ledger.trust)
                if mutation.kind == "bundle"
                else verify_ledger(ledger.settings, trust=ledger.trust)
            )
            wrong = next((one for one in found if one.ok is False), None)
        except WattledgerError as error:
            return f"error: {str(error)[:150]}"
        return "" if wrong is None else f"{wrong.what} {wrong.place}: {wrong.detail}"[:200]


def _try_all(ledger: Ledger, chosen: Sequence[Mutation]) -> dict[str, Any]:
    counts: dict[str, int] = {}
    unfound, impossible = [], 0
    for number, mutation in enumerate(chosen):
        if number % 50 == 0:
            print(f"{number} of {len(chosen)}", file=sys.stderr, flush=True)
        try:
            named = try_mutation(ledger, mutation)
        except Exception as error:  # What ends in a traceback is not found: it is a defect.
            unfound.append(f"{mutation.kind}: {mutation.name}: TRACEBACK {error!r}"[:300])
            print(unfound[-1], file=sys.stderr, flush=True)
            continue
        if named is None:
            impossible += 1
            continue
        counts[mutation.kind] = counts.get(mutation.kind, 0) + 1
        if not named:
            unfound.append(f"{mutation.kind}: {mutation.name}")
            print(unfound[-1], file=sys.stderr, flush=True)
    return {"tried": counts, "impossible": impossible, "unfound": unfound}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.mutations", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=1_000_000, help="try so many only")
    parser.add_argument("--share", default="0/1", help="of several processes: which/of how many")
    given = parser.parse_args()
    which, of = (int(part) for part in given.share.split("/"))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        ledger = make_ledger(Path(folder) / "ledger")
        untouched = [one for one in verify_ledger(ledger.settings) if one.ok is False]
        untouched += [one for one in verify_bundle(ledger.bundle, ledger.trust) if one.ok is False]
        if untouched:
            sys.exit(f"the ledger itself is not verified: {untouched[0]}")
        chosen = list_mutations(ledger, given.seed)[: given.limit][which::of]
        found = _try_all(ledger, chosen)
    found["seconds"] = round(time.monotonic() - began)
    print(json.dumps(found, indent=1))
    sys.exit(bool(found["unfound"]))


if __name__ == "__main__":
    main()
