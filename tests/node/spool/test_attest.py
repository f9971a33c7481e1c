"""Segments are signed as they are sealed; what is sealed again after a kill keeps its number."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from wattledger.files import write_file
from wattledger.readings import Gpu
from wattledger.spool import seal
from wattledger.spool.attest import Attestation, attestation_of, load_attestation
from wattledger.spool.spool import Spool

HOST = "node01"
GPU = Gpu("GPU-1", 0, "H100")
NOTHING = (None,) * 8


def journal(spool: Spool, number: int) -> Path:
    """A journal of one reading and one interval of the host."""
    at = 1_700_000_000_000_000 + number * 60_000_000
    made = spool.begin_journal({"host": spool.host}, at)
    made.add(
        [GPU], [(GPU, at, (100_000, 1, *NOTHING))], [], [(at, 1, "cpu", 1, True, "m")], (at, 0)
    )
    made.close()
    return made.path


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool", HOST)
    made.create()
    return made


def attested(spool: Spool) -> list[Attestation]:
    told = [load_attestation(attestation_of(path)) for path in spool.folder.glob("*.parquet")]
    return sorted(told, key=lambda one: one.sequence)


def test_sealing_signs_numbers_and_chains(spool: Spool, tmp_path: Path) -> None:
    assert seal.main([str(journal(spool, n)) for n in range(2)]) == 0
    told = attested(spool)
    assert [one.sequence for one in told] == [1, 2, 3, 4]
    assert [one.previous_sha256 for one in told] == ["", *(one.sha256 for one in told[:-1])]
    assert all(one.is_genuine() for one in told)
    assert len({one.public_key for one in told}) == 1
    key = tmp_path / "keys" / f"{HOST}.json"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert not spool.folder.is_relative_to(key.parent)
    # Copies take files in order of name: the attestation comes before its segment.
    names = sorted(path.name for path in spool.folder.iterdir())
    for path in spool.folder.glob("*.parquet"):
        assert names.index(attestation_of(path).name) < names.index(path.name)


@pytest.mark.parametrize("killed_at", [1, 2, 3, 4, 5, 6])
def test_what_is_sealed_again_after_a_kill_keeps_its_number(
    killed_at: int, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = journal(spool, 0)
    kept = Path(shutil.copy(path, spool.root / "kept"))
    steps = 0

    class Killed(BaseException):
        pass

    def count(*_: object, **__: object) -> None:
        nonlocal steps
        steps += 1
        if steps == killed_at:
            raise Killed

    # Killed before each rename: of the chain, of the attestation and of the segment, for both segments.
    replace, replace_path = os.replace, Path.replace
    monkeypatch.setattr(os, "replace", lambda *a, **k: (count(), replace(*a, **k))[1])
    monkeypatch.setattr(Path, "replace", lambda *a, **k: (count(), replace_path(*a, **k))[1])
    with pytest.raises(Killed):
        seal.main([str(path)])
    assert steps == killed_at
    monkeypatch.undo()
    if not path.exists():
        shutil.copy(kept, path)
    before = {p.name: p.read_bytes() for p in spool.folder.glob("*.attest.json")}
    assert seal.main([str(path)]) == 0
    told = attested(spool)
    assert [one.sequence for one in told] == [1, 2]
    assert all(one.is_genuine() for one in told)
    for name, content in before.items():
        assert (spool.folder / name).read_bytes() == content
    assert [p for p in spool.folder.iterdir() if p.name.endswith(".part")] == []


def test_a_host_with_a_key_seals_nothing_unsigned(
    spool: Spool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal.main([str(journal(spool, 0))]) == 0
    write_file(tmp_path / "keys" / f"{HOST}.json", "{}")
    path = journal(spool, 1)
    assert seal.main([str(path)]) == 5
    assert path.exists()
    assert "the key cannot be used" in capsys.readouterr().err
    (tmp_path / "keys" / f"{HOST}.json").unlink()
    (tmp_path / "keys" / f"{HOST}.json").symlink_to("/dev/zero")
    assert seal.main([str(path)]) == 5


def test_where_no_key_can_be_made_segments_are_not_signed(
    spool: Spool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keys").write_text("a file")
    assert seal.main([str(journal(spool, 0))]) == 0
    assert "segments are not signed" in capsys.readouterr().err
    assert len(list(spool.folder.glob("*.parquet"))) == 2


def test_a_signature_is_checked_with_openssl_alone(spool: Spool, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    seal.main([str(journal(spool, 0))])
    told = attested(spool)[0]
    # As docs/security.md says it: the key as DER, the five signed lines, the signature.
    der = bytes.fromhex("302a300506032b6570032100" + told.public_key)
    message = f"wattledger segment 1\n{HOST}\n1\n{told.sha256}\n\n"
    for name, content in (
        ("key", der),
        ("message", message.encode()),
        ("signature", bytes.fromhex(told.signature)),
    ):
        (tmp_path / name).write_bytes(content)
    done = subprocess.run(
        ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "key", "-rawin",
         "-in", "message", "-sigfile", "signature"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert "Signature Verified Successfully" in done.stdout + done.stderr
