"""Whoever may write every file of a project forges figures; verification names what was forged."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows import settings as settings_module
from flows.errors import GateFailed, SettingsError, UsageError
from flows.files import hash_file
from flows.publication import signing
from flows.publication.findings import Finding, Trust, find_unverified
from flows.publication.manifest import MANIFEST, SIGNATURE, digest_entry, digest_files
from flows.publication.publish import publish_candidate
from flows.publication.signing import sign_ledger
from flows.publication.verify import verify_ledger
from flows.settings import Settings
from tests.conftest import wattledger
from tests.flows.publication.helpers import list_failures, writable


def list_folders(project: Settings) -> list[Path]:
    return sorted(project.publications.glob("0*"))


def give_key(project: Settings, name: str = "ledger") -> Settings:
    """The project with a key of its own."""
    private, public = project.root / f"{name}.pem", project.root / f"{name}.pub.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    path = project.root / "wattledger.toml"
    path.write_text(
        f"{path.read_text()}\n[ledger]\nsigning_key = '{private.name}'\npublic_key = '{public.name}'\n"
    )
    return settings_module.load(project.root)


def check_folders(
    project: Settings, publication: str = "", trust: Trust | None = None
) -> Iterator[Finding]:
    """What verification finds of the ledger's folders, before it looks at the warehouse and computes figures."""
    found = verify_ledger(project, publication, trust)
    return itertools.takewhile(lambda finding: finding.what != "cache", found)


def forge(project: Settings, folder: Path, *, manifest: bool) -> None:
    """Halve figures and pretend that an older method computed them; with a manifest that fits, or with none."""
    with writable(folder / "published.duckdb") as con:
        con.execute("UPDATE run_footprint SET co2e_ug = co2e_ug // 2")
        con.execute("UPDATE computation SET method_version = '4'")
        con.execute("UPDATE publication SET method_version = '4'")
    path, digest = folder / MANIFEST, None
    said = json.loads(path.read_bytes())
    path.unlink()
    (folder / SIGNATURE).unlink(missing_ok=True)
    if manifest:
        said["publication"]["method_version"] = "4"
        said["publication"]["digest"] = digest_entry(said["publication"])
        said["files"] = digest_files(folder)
        path.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")
        digest = hash_file(path)
    with writable(project.root / "warehouse.duckdb") as con:
        con.execute(
            "UPDATE publication SET manifest_sha256 = ?, method_version = '4', digest = ? WHERE publication_id = ?",
            [digest, said["publication"]["digest"], folder.name],
        )


def test_a_publication_whose_manifest_was_removed_is_named(republished: Settings) -> None:
    """The first and the last; figures are halved, and an old method is said to have computed them."""
    first, last = list_folders(republished)
    forge(republished, last, manifest=False)
    said = wattledger("verify", "--all", "--project", republished.root)
    assert said.returncode == 3
    assert f"{last.name}: manifest, manifest.json" in said.stdout
    assert "nobody can vouch for this publication" in said.stdout
    forge(republished, first, manifest=False)
    found = [one for one in check_folders(republished) if one.place == MANIFEST]
    assert {(one.publication_id, one.ok) for one in found} == {
        (first.name, False),
        (last.name, False),
    }


def test_a_forged_manifest_is_named_by_key_and_by_expected_digest(
    republished: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "verify_ledger", lambda *given, **options: iter([]))
    project = give_key(republished)
    assert len(sign_ledger(project)) == 2
    last = list_folders(project)[-1]
    digest = hash_file(last / MANIFEST)
    forge(project, last, manifest=True)
    trusted = check_folders(project, trust=Trust(project.root / "ledger.pub.pem"))
    assert ("signature", SIGNATURE) in list_failures(trusted)
    # Without key and digest nothing shows who made the ledger; but methods never go back, and what was
    # asked for was not computed again.
    (project.root / "wattledger.toml").write_text(
        (project.root / "wattledger.toml").read_text().split("[ledger]")[0]
    )
    project = settings_module.load(project.root)
    expected = check_folders(project, trust=Trust(expected=digest))
    assert ("chain", "expected digest") in list_failures(expected)
    assert ("chain", "method_version") in list_failures(check_folders(project))


def test_figures_that_were_not_computed_again_are_not_verified() -> None:
    def finding(name: str, what: str, place: str, ok: bool | None) -> Finding:
        return Finding(name, what, place, ok)

    old = [finding("0001", "figures", "all", None)]
    new = [finding("0002", "figures", "code", None), finding("0002", "figures", "gpu_slot", True)]
    assert find_unverified(old) == old[0]
    assert find_unverified([*old, *new]) is None
    assert find_unverified([*new, *old]) == old[0]
    assert find_unverified([]) is None


def test_what_was_computed_by_another_method_exits_with_3(published: Settings) -> None:
    folder = published.published.resolve()
    forge(published, folder, manifest=True)
    with writable(folder / "published.duckdb"):
        pass
    said = wattledger("verify", "--project", published.root)
    assert said.returncode == 3
    assert "it was computed by method 4" in said.stdout


def test_the_head_is_the_publication_that_was_expected(republished: Settings) -> None:
    first, last = list_folders(republished)
    digests = [hash_file(folder / MANIFEST) for folder in (first, last)]

    def check(expected: str, publication: str = "") -> list[str]:
        found = check_folders(republished, publication, Trust(expected=expected))
        return [one.detail for one in found if one.place == "expected digest"]

    assert check(digests[1]) == [""]
    assert check(digests[0], "0001") == [""]
    [detail] = check(digests[0])
    assert f"it is that of publication {first.name}, and {last.name} was verified" in detail
    # The last one is removed, wherever it is named.
    shutil.rmtree(last)
    with writable(republished.root / "warehouse.duckdb") as con:
        con.execute("DELETE FROM publication WHERE sequence = 2")
        con.execute("DELETE FROM restatement")
    republished.published.unlink()
    republished.published.symlink_to(f"publications/{first.name}")
    assert check(digests[1]) == ["no publication of this ledger has it"]


def test_publish_prints_the_digest_to_keep(published: Settings) -> None:
    digest = hash_file(published.published / MANIFEST)
    said = wattledger("publish", "--project", published.root)
    assert said.returncode == 0, said.stderr
    assert f"(verify --expect): {digest}" in said.stdout
    assert publish_candidate(published).manifest_sha256 == digest


def test_a_key_signs_only_what_is_verified(published: Settings) -> None:
    with pytest.raises(SettingsError, match="there is no key to sign with"):
        sign_ledger(published)
    project = give_key(published)
    [folder] = list_folders(project)
    said = wattledger("sign", "--project", project.root)
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() == f"signed {folder.name}"
    (folder / SIGNATURE).unlink()
    with writable(project.root / "warehouse.duckdb") as con:
        con.execute("UPDATE gpu_reading SET energy_mj = energy_mj + 1000 WHERE rowid = 600")
    with pytest.raises(GateFailed, match="checks failed, the first: cache"):
        sign_ledger(project)
    assert not (folder / SIGNATURE).exists()


def test_what_comes_after_a_signed_publication_was_signed_when_it_was_published(
    republished: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "verify_ledger", lambda *given, **options: iter([]))
    project = give_key(republished)
    first, last = list_folders(project)
    assert sign_ledger(project) == [first.name, last.name]
    (last / SIGNATURE).unlink()
    with pytest.raises(UsageError, match="it is unsigned, and one before it is signed"):
        sign_ledger(project)
    assert sign_ledger(project, hash_file(last / MANIFEST)) == [last.name]
    (last / SIGNATURE).chmod(0o644)
    (last / SIGNATURE).write_bytes(b"x" * 64)
    with pytest.raises(GateFailed, match="it is by another key"):
        sign_ledger(project)


def test_nothing_is_published_that_the_public_key_would_not_accept(published: Settings) -> None:
    project = give_key(published)
    path = project.root / "wattledger.toml"
    text = path.read_text()
    path.write_text(text.replace("signing_key = 'ledger.pem'\n", ""))
    with pytest.raises(SettingsError, match="no key to sign with"):
        publish_candidate(settings_module.load(project.root))
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", project.root / "other.pem"],
        check=True,
    )
    path.write_text(text.replace("'ledger.pem'", "'other.pem'"))
    with pytest.raises(SettingsError, match="are no pair"):
        publish_candidate(settings_module.load(project.root))


def make_socket(path: Path) -> None:
    # Its path may have some hundred bytes only.
    there = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(there)


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "manifest": (lambda path: path.write_text("{}"), "the manifest does not know it"),
    "link": (lambda path: path.symlink_to("/etc/passwd"), "it is a link"),
    "broken link": (lambda path: path.symlink_to("nowhere"), "it is a link"),
    "link to a folder": (lambda path: path.symlink_to("/"), "it is a link"),
    "pipe": (os.mkfifo, "it is a pipe"),
    "socket": (make_socket, "it is a socket"),
    "folder": (lambda path: path.mkdir(), "it is an empty folder"),
    "empty file": (lambda path: path.touch(), "the manifest does not know it"),
}


def test_whatever_lies_in_a_publication_is_named(published: Settings) -> None:
    folder = published.published.resolve()
    names = {"manifest": "manifest.json", "empty file": "manifest.json.sig"}
    for kind, (make, _) in KINDS.items():
        make(folder / "data_docs" / names.get(kind, kind))
    (folder / "data_docs" / "a\nb\x1b[31m.txt").write_text("x")
    (folder / os.fsdecode(b"\xff.txt")).write_text("x")
    found = {one.place: one.detail for one in check_folders(published) if one.ok is False}
    for kind, (_, detail) in KINDS.items():
        assert found[f"data_docs/{names.get(kind, kind)}"] == detail
    assert "data_docs/a\\nb\\x1b[31m.txt" in found


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE, "published.duckdb", "report.html"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_links_and_pipes_in_the_place_of_files_are_not_opened(
    name: str, kind: str, published: Settings, tmp_path: Path
) -> None:
    path = published.published.resolve() / name
    copy = tmp_path / name
    if path.exists():
        shutil.move(path, copy)
    else:
        copy.write_text("x")
    if kind == "link":
        path.symlink_to(copy)
    else:
        os.mkfifo(path)
    found = {
        (one.what, one.place): one.ok for one in check_folders(published) if one.ok is not True
    }
    if name == "published.duckdb":
        assert found == {("chain", "folder"): False}
    elif name == SIGNATURE:
        assert found == {("signature", SIGNATURE): False}
    else:
        assert found[("manifest" if name == MANIFEST else "file", name)] is False


def test_whatever_lies_beside_publications_is_named(republished: Settings, tmp_path: Path) -> None:
    first, last = list_folders(republished)
    (republished.publications / ".new").mkdir()
    (republished.publications / "notes.txt").write_text("x")
    (republished.publications / "0003-00000000").mkdir()
    moved = tmp_path / first.name
    shutil.move(first, moved)
    first.symlink_to(moved)
    found = list_failures(check_folders(republished))
    assert {("chain", "notes.txt"), ("chain", "0003-00000000"), ("chain", "folder")} <= found
    republished.published.unlink()
    shutil.copytree(last, republished.published)
    [finding] = [one for one in check_folders(republished) if one.place == "published"]
    assert finding.ok is False
