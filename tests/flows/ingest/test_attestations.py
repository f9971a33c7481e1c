"""Signed at the meter: what is forged, replayed, reordered or missing is named, and moves no figure."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from flows.accounting.compute import compute
from flows.errors import BadInput, WarehouseBusy
from flows.files import hash_file
from flows.ingest import gpu_store
from flows.ingest.attestations import Attestations, accept_key
from flows.ingest.gpu import ingest_gpu
from flows.ingest.runs import ingest_runs
from flows.publication.publish import publish_candidate
from flows.publication.verify import verify_ledger
from flows.settings import Settings
from flows.warehouse.registry import Outcome
from flows.warehouse.store import open_for_writing, store_of
from tests.conftest import T0, ask, copied, made_once, make_project, runs_csv, segment, wattledger
from wattledger.spool.attest import Attestation, Signer, attestation_of, load_attestation

HOST, OTHER = "node01", "node02"


def _make(folder: Path) -> None:
    """Six segments of a minute of one host, signed; and what strangers could make: unsigned ones of it."""
    make_project(folder, "[zones.XX]\nfallback_intensity_g_per_kwh = 300\n")
    for place, host in (("signed", HOST), ("other", OTHER)):
        spool = folder / place / host
        spool.mkdir(parents=True)
        signer = Signer(folder / "keys" / f"{host}.json", host)
        for number in range(6 if host == HOST else 2):
            made = segment(
                folder,
                host,
                gpus=1,
                start=T0 + timedelta(minutes=number),
                seconds=60,
                seed=len(place),
            )
            path = made.rename(spool / f"{number}.parquet")
            attestation_of(path).write_text(signer.sign(path.name, path).as_text())


@pytest.fixture
def signed(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Settings:
    return copied(made_once(tmp_path_factory, "signed", _make), tmp_path / "project")


def path_of(project: Settings, number: int, place: str = "signed", host: str = HOST) -> Path:
    return project.root / place / host / f"{number}.parquet"


def load(project: Settings, *numbers: int) -> list[Outcome]:
    return ingest_gpu(project, [path_of(project, number) for number in numbers])


def stored(project: Settings) -> tuple[int, list[int]]:
    [row] = ask(project, "SELECT count(*) AS n FROM gpu_reading")
    chain = ask(project, "SELECT segment_sequence AS s FROM signed_segment ORDER BY ALL")
    return row["n"], [one["s"] for one in chain]


def test_a_chain_is_stored_and_its_key_is_pinned_on_first_sight(signed: Settings) -> None:
    outcomes = ingest_gpu(signed, [signed.root / "signed"])
    assert [outcome.verdict for outcome in outcomes] == ["loaded"] * 6
    key = load_attestation(attestation_of(path_of(signed, 0))).public_key
    said = [warning for outcome in outcomes for warning in outcome.warnings]
    assert said == [
        f"the key of {HOST} is {key}: seen for the first time, and the only one from now on"
    ]
    assert ask(signed, "SELECT host, public_key, accepted_by FROM host_key") == [
        {"host": HOST, "public_key": key, "accepted_by": "first sight"}
    ]
    assert stored(signed) == (360, [1, 2, 3, 4, 5, 6])
    assert [o.verdict for o in ingest_gpu(signed, [signed.root / "signed"])] == ["known"] * 6


def test_a_hole_is_said_and_may_be_filled(signed: Settings) -> None:
    outcomes = load(signed, 0, 1, 4)
    assert [outcome.verdict for outcome in outcomes] == ["loaded"] * 3
    assert (
        "2 signed segments of node01 are missing (the first is number 3)"
        in outcomes[2].warnings[-1]
    )
    assert ask(signed, "SELECT host, missing, first_missing FROM segment_chain") == [
        {"host": HOST, "missing": 2, "first_missing": 3}
    ]
    outcomes = load(signed, 3, 2)
    assert [outcome.warnings for outcome in outcomes] == [[], []]
    assert ask(signed, "SELECT missing, first_missing FROM segment_chain") == [
        {"missing": 0, "first_missing": None}
    ]


def _change_reading(path: Path, project: Settings) -> None:
    shutil.copy(path_of(project, 3), path)


def _change_signature(path: Path, project: Settings) -> None:
    told = load_attestation(attestation_of(path))
    attestation_of(path).write_text(replace(told, signature="00" * 64).as_text())


def _sign_with_own_key(path: Path, project: Settings) -> None:
    signer = Signer(project.root / "mallory" / "key.json", HOST)
    attestation_of(path).write_text(signer.sign(path.name, path).as_text())


def _keep_key_forge_signature(path: Path, project: Settings) -> None:
    """The pinned key's name over another key's signature."""
    told = load_attestation(attestation_of(path))
    own = Signer(project.root / "mallory" / "key.json", HOST).sign(path.name, path)
    attestation_of(path).write_text(replace(told, signature=own.signature).as_text())


def _claim_another_number(path: Path, project: Settings) -> None:
    told = load_attestation(attestation_of(path))
    attestation_of(path).write_text(replace(told, sequence=9).as_text())


def _leave_unsigned(path: Path, project: Settings) -> None:
    attestation_of(path).unlink()


def _rename_host(path: Path, project: Settings) -> None:
    told = load_attestation(attestation_of(path))
    attestation_of(path).write_text(replace(told, host="node09").as_text())


def _garble(path: Path, project: Settings) -> None:
    attestation_of(path).write_text("[" * 100_000)


def _list_for_number(path: Path, project: Settings) -> None:
    told = json.loads(attestation_of(path).read_text())
    attestation_of(path).write_text(json.dumps({**told, "sequence": [2]}))


def _link(path: Path, project: Settings) -> None:
    attestation_of(path).unlink()
    attestation_of(path).symlink_to("/proc/self/environ")


def _tell_of_another_host(path: Path, project: Settings) -> None:
    """Whoever holds the key of node02 signs readings of node01's GPU."""
    signer = Signer(project.root / "keys" / f"{OTHER}.json", OTHER)
    attestation_of(path).write_text(signer.sign(path.name, path).as_text())


FORGERIES = {
    _change_reading: "not those that were signed",
    _change_signature: "signature is not that of the key",
    _sign_with_own_key: "another key",
    _keep_key_forge_signature: "signature is not that of the key",
    _claim_another_number: "signature is not that of the key",
    _leave_unsigned: "it is not signed, but the collector of node01 signs",
    _rename_host: "signature is not that of the key",
    _garble: "attestation cannot be used: nested too deeply",
    _list_for_number: "sequence is no number",
    _link: "attestation cannot be used",
    _tell_of_another_host: "node02 signed it, but it tells of node01",
}


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda f: f.__name__.strip("_"))
def test_a_forgery_is_refused_and_named(forge: object, signed: Settings) -> None:
    load(signed, 0)
    path = path_of(signed, 1)
    forge(path, signed)  # type: ignore[operator]
    [outcome] = ingest_gpu(signed, [path])
    assert outcome.verdict == "quarantined"
    assert FORGERIES[forge] in outcome.reason  # type: ignore[index]
    assert stored(signed) == (60, [1])
    assert ask(signed, "SELECT count(*) AS n FROM quarantine") == [{"n": 1}]


def test_what_the_key_itself_signs_again_is_replayed_or_out_of_order(signed: Settings) -> None:
    """A key that was restored from a copy gives numbers a second time."""
    load(signed, 0, 1)
    copy = signed.root / "keys" / "again.json"
    state = json.loads((signed.root / "keys" / f"{HOST}.json").read_text())
    copy.write_text(json.dumps({**state, "segments": state["segments"][:1]}))
    path = path_of(signed, 3)
    attestation_of(path).write_text(Signer(copy, HOST).sign("x.parquet", path).as_text())
    assert "number 2 of node01 is another segment" in ingest_gpu(signed, [path])[0].reason
    entry = {**state["segments"][1], "sha256": "0" * 64}
    copy.write_text(json.dumps({**state, "segments": [entry]}))
    attestation_of(path).write_text(Signer(copy, HOST).sign("x.parquet", path).as_text())
    assert "does not follow the segment before it" in ingest_gpu(signed, [path])[0].reason
    assert stored(signed) == (120, [1, 2])


def test_gpus_of_a_host_that_signs_are_not_told_of_under_another_name(signed: Settings) -> None:
    load(signed, 0)
    path = path_of(signed, 1)
    moved = pl.read_parquet(path).with_columns(host=pl.lit("elsewhere"))
    moved.write_parquet(signed.root / "moved.parquet")
    [outcome] = ingest_gpu(signed, [signed.root / "moved.parquet"])
    assert "the collector of node01 signs" in outcome.reason
    # Prometheus signs nothing: what was fetched from it is loaded, and marked.
    fetched = signed.root / "fetched" / "prometheus" / "x.parquet"
    fetched.parent.mkdir(parents=True)
    shutil.copy(path, fetched)
    assert ingest_gpu(signed, [fetched])[0].verdict == "loaded"
    assert stored(signed) == (120, [1])


def test_a_new_key_counts_when_a_person_accepts_it(signed: Settings) -> None:
    load(signed, 0)
    path = path_of(signed, 1)
    _sign_with_own_key(path, signed)
    assert ingest_gpu(signed, [path])[0].verdict == "quarantined"
    key = load_attestation(attestation_of(path)).public_key
    with open_for_writing(store_of(signed)) as con:
        for wrong in ("no key", "ab" * 31):
            with pytest.raises(BadInput, match="not an Ed25519 public key"):
                accept_key(con, HOST, wrong, "R. Roe", "why")
        before = accept_key(con, HOST, key, "R. Roe", "the disk of node01 was replaced")
        assert before == load_attestation(attestation_of(path_of(signed, 0))).public_key
    assert ingest_gpu(signed, [path])[0].verdict == "loaded"
    rows = ask(signed, "SELECT accepted_by, reason FROM host_key ORDER BY accepted_at")
    assert [row["accepted_by"] for row in rows] == ["first sight", "R. Roe"]
    # What the old key signs from now on does not count.
    assert "another key" in load(signed, 2)[0].reason


def test_the_share_that_is_signed_is_told(signed: Settings) -> None:
    for number in (4, 5):
        attestation_of(path_of(signed, number)).unlink()
    # Unsigned, of a host whose key nobody knows yet: allowed, and marked.
    assert [o.verdict for o in load(signed, 4, 5, 0, 1, 2, 3)] == ["loaded"] * 6
    rows = [
        "signed,2024-05-01T12:00:00Z,2024-05-01T12:02:00Z,node01,all,1",
        "mixed,2024-05-01T12:02:00Z,2024-05-01T12:06:00Z,node01,all,1",
    ]
    assert ingest_runs(signed, [runs_csv(signed.root, rows)])[0].verdict == "loaded"
    with open_for_writing(store_of(signed)) as con:
        con.execute(
            "INSERT INTO run_record BY NAME SELECT sha AS record_id, 'signed' AS run_id, 'node01' AS host, "
            "now() AS started_at, '{}' AS record, '' AS source_name, now() AS loaded_at, "
            "sha AS record_sha256 FROM (VALUES ('seen'), ('invented')) AS t(sha)"
        )
        con.execute("INSERT INTO seen_record VALUES ('seen', 'node01', 1001, now(), 's')")
    compute(signed)
    publish_candidate(signed)
    meters = [one for one in verify_ledger(signed) if one.what == "meter"]
    assert [(one.place, one.ok) for one in meters] == [(HOST, True)]
    assert (
        "GPU energy of runs rests on readings that their hosts signed"
        in (signed.published / "summary.html").read_text()
    )
    shares = {row["run_id"]: row for row in ask(signed, "FROM data_quality")}
    assert shares["signed"]["records_seen_share"] == 0.5
    assert shares["mixed"]["records_seen_share"] == 0
    assert 0.6 < shares["signed"]["signed_share"] <= 1
    assert 0 < shares["mixed"]["signed_share"] < 1
    assert asdict(load_attestation(attestation_of(path_of(signed, 0))))["host"] == HOST


def test_the_command_accepts_a_key(signed: Settings) -> None:
    load(signed, 0)
    words = ["accept-key", HOST, "ab" * 32, "--project", signed.root]
    done = wattledger(*words, "--because", "a new disk", "--by", "R. Roe")
    assert done.returncode == 0, done.stderr
    assert f"{HOST}: {'ab' * 32} counts from now on, in place of " in done.stdout
    again = wattledger(*words, "--because", "a new disk")
    assert (again.returncode, "already" in again.stderr) == (2, True)


def test_run_records_that_signed_segments_tell_of_are_known(signed: Settings) -> None:
    """Only what is signed counts, and nothing that is not what the collector writes."""
    digest = "ab" * 32
    details = [
        json.dumps({"sha256": digest, "owner_uid": 1001}),
        json.dumps({"sha256": [digest], "owner_uid": 1001}),
        json.dumps({"sha256": digest, "owner_uid": -1}),
        "[" * 9999,
    ]
    for number, is_signed in ((0, True), (1, False)):
        path = path_of(signed, number)
        events = [
            {"ts_us": 1_714_564_800_000_000, "gpu_uuid": None, "event": "record_seen", "detail": d}
            for d in details
        ]
        table = pq.read_table(path)
        metadata = {
            **(table.schema.metadata or {}),
            b"wattledger.collector": json.dumps({"host": HOST, "gpus": []}).encode(),
            b"wattledger.events": json.dumps(events).encode(),
        }
        pq.write_table(table.replace_schema_metadata(metadata), path)
        attestation_of(path).unlink()
        if is_signed:
            signer = Signer(signed.root / "new" / "key.json", HOST)
            attestation_of(path).write_text(signer.sign(path.name, path).as_text())
    assert [o.verdict for o in load(signed, 1, 0)] == ["loaded"] * 2
    rows = ask(signed, "SELECT record_sha256, host, owner_uid, segment_id FROM seen_record")
    assert [(r["record_sha256"], r["host"], r["owner_uid"]) for r in rows] == [(digest, HOST, 1001)]
    assert ask(signed, "SELECT count(*) AS n FROM collector_event") == [{"n": 0}]


@pytest.mark.parametrize(
    "told",
    [
        {"collector": {"host": HOST, "gpus": [], "period_ms": "x"}},
        {"collector": {"host": HOST, "gpus": [{"uuid": "g", "index": 10**20, "model": None}]}},
        {"events": [{"ts_us": 10**30, "event": "e"}]},
        {"events": [{"ts_us": 1, "event": "e", "detail": ["x"]}]},
        {"events": [{"ts_us": True, "event": "e"}]},
        {"collector": {"host": [HOST], "gpus": [{"uuid": "g", "index": 0, "model": None}]}},
    ],
)
def test_hostile_metadata_is_a_sentence(told: dict[str, object], signed: Settings) -> None:
    path = path_of(signed, 0)
    attestation_of(path).unlink()
    table = pq.read_table(path)
    whole = {"collector": {"host": HOST, "gpus": []}, "events": [], **told}
    metadata = {f"wattledger.{k}".encode(): json.dumps(v).encode() for k, v in whole.items()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    [outcome] = ingest_gpu(signed, [path])
    assert "the collector's metadata is damaged" in outcome.reason


@pytest.mark.parametrize("taken_away", [False, True])
def test_a_segment_that_is_exchanged_while_it_is_read_is_not_stored(
    taken_away: bool, signed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its digest and its readings, another file gets its name."""
    path, other = path_of(signed, 0), path_of(signed, 1)
    check = Attestations.check

    def exchange(self: Attestations, checked: Path, digest: str) -> list[str]:
        said = check(self, checked, digest)
        other.replace(path)
        return said

    def take_away(*given: object, **options: object) -> object:
        result = insert_readings(*given, **options)  # type: ignore[arg-type]
        path.unlink()
        return result

    insert_readings = gpu_store._insert_readings
    monkeypatch.setattr(Attestations, "check", exchange)
    if taken_away:
        monkeypatch.setattr(gpu_store, "_insert_readings", take_away)
    [outcome] = ingest_gpu(signed, [path])
    assert outcome.verdict == "quarantined"
    assert "changed, or taken away, while it was read" in outcome.reason
    assert stored(signed)[0] == 0


def test_of_two_processes_that_see_a_host_first_one_counts(signed: Settings) -> None:
    with open_for_writing(store_of(signed)) as con:
        first, second = Attestations(con), Attestations(con)
        path = path_of(signed, 0)
        first.check(path, hash_file(path))
        _sign_with_own_key(path, signed)
        second.check(path, hash_file(path))
        first.save()
        with pytest.raises(WarehouseBusy, match="another process"):
            second.save()
    assert len(ask(signed, "FROM host_key")) == 1


@given(st.binary(max_size=300) | st.text(max_size=80).map(str.encode))
def test_no_bytes_are_an_attestation_but_those_of_one(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.attest.json"
        path.write_bytes(data)
        with pytest.raises(ValueError):  # noqa: PT011 (any sentence)
            load_attestation(path)


@given(
    st.sampled_from(sorted(Attestation.__dataclass_fields__)),
    st.none() | st.integers() | st.text(max_size=70) | st.lists(st.integers(), max_size=2),
)
def test_a_changed_field_is_no_genuine_attestation(name: str, value: object) -> None:
    told = Attestation("h", 2, "ab" * 32, "cd" * 32, SIGNED.public_key, SIGNED.signature)
    assert told == SIGNED
    assert SIGNED.is_genuine()
    fields = {**asdict(SIGNED), name: value}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.attest.json"
        path.write_text(json.dumps({"wattledger_attestation": 1, **fields}))
        try:
            changed = load_attestation(path)
        except ValueError:
            return
    same = value == asdict(SIGNED)[name]
    assert same or not changed.is_genuine()


def _sign() -> Attestation:
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw().hex()
    told = Attestation("h", 2, "ab" * 32, "cd" * 32, public)
    return replace(told, signature=key.sign(told.as_message()).hex())


SIGNED = _sign()
