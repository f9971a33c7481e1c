"""Signatures of meters that a publication names are checked again, by whoever has the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from flows.publication.meters import check_signatures
from flows.warehouse.frames import insert
from wattledger.spool.attest import Attestation, Signer


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> list[Attestation]:
    folder = tmp_path_factory.mktemp("keys")
    signer = Signer(folder / "key.json", "node01")
    told = []
    for number in range(4):
        content = folder / str(number)
        content.write_text(f"segment {number}")
        told.append(signer.sign(content.name, content))
    return told


@pytest.fixture
def con(chain: list[Attestation], tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A published file with a chain of four, and a key; the third has not arrived."""
    with closing(duckdb.connect()) as made:
        made.execute(f"ATTACH '{tmp_path / 'p.duckdb'}' AS published; USE published")
        made.execute(
            "CREATE TABLE host_key (host VARCHAR, public_key VARCHAR);"
            "CREATE TABLE signed_segment (segment_id VARCHAR, host VARCHAR, public_key VARCHAR, "
            "segment_sequence BIGINT, previous_sha256 VARCHAR, signature VARCHAR)"
        )
        insert(made, "host_key", [{"host": "node01", "public_key": chain[0].public_key}])
        rows = [
            {
                "segment_id": one.sha256,
                "host": one.host,
                "public_key": one.public_key,
                "segment_sequence": one.sequence,
                "previous_sha256": one.previous_sha256,
                "signature": one.signature,
            }
            for one in chain
            if one.sequence != 3
        ]
        insert(made, "signed_segment", rows)
        yield made


def test_a_chain_with_a_hole_is_sound(con: duckdb.DuckDBPyConnection) -> None:
    [finding] = check_signatures(con, "0001")
    assert (finding.what, finding.place, finding.ok) == ("meter", "node01", True)
    con.execute("DELETE FROM signed_segment")
    assert list(check_signatures(con, "0001")) == []


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        ("UPDATE signed_segment SET segment_id = 'ab' WHERE segment_sequence = 4", "not signed by"),
        ("UPDATE signed_segment SET signature = '' WHERE segment_sequence = 1", "not signed by"),
        ("UPDATE signed_segment SET signature = NULL WHERE segment_sequence = 1", "not signed by"),
        ("UPDATE signed_segment SET segment_sequence = 9 WHERE segment_sequence = 4", "not signed"),
        ("UPDATE signed_segment SET segment_sequence = NULL", "not signed by its key"),
        ("UPDATE signed_segment SET host = 'node02'", "a key that was not accepted"),
        ("UPDATE signed_segment SET public_key = repeat('00', 32)", "a key that was not accepted"),
        ("UPDATE host_key SET public_key = repeat('00', 32)", "a key that was not accepted"),
        ("DELETE FROM host_key", "a key that was not accepted"),
        ("INSERT INTO signed_segment FROM signed_segment LIMIT 1", "stands twice"),
        (
            "UPDATE signed_segment SET previous_sha256 = 'cd' WHERE segment_sequence = 2",
            "number 2 does not follow number 1",
        ),
    ],
)
def test_what_the_operator_invents_is_found(
    forge: str, said: str, con: duckdb.DuckDBPyConnection
) -> None:
    con.execute(forge)
    findings = list(check_signatures(con, "0001"))
    assert [finding.ok for finding in findings] == [False]
    assert said in findings[0].detail
