"""A sample of the mutation campaign: one thing is changed at a time, and verification names it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from bench import mutations
from bench.mutations import Ledger, Mutation, list_mutations, make_ledger, try_mutation
from flows import settings as settings_module
from flows.publication.bundle import verify_bundle
from flows.publication.verify import verify_ledger
from tests.conftest import made_once

SAMPLE = {"warehouse": 10, "published": 12, "file": 16, "manifest": 10, "link": 6, "bundle": 6}
"""Kind -> how many of it are tried here."""
SEED = 20261125


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    made = made_once(tmp_path_factory, "mutated", _make)
    folder = tmp_path_factory.mktemp("ledger") / "ledger"
    shutil.copytree(made, folder, symlinks=True)
    return Ledger(settings_module.load(folder), folder / "r1.zip")


def _make(folder: Path) -> None:
    make_ledger(folder)


@pytest.fixture(scope="module")
def listed(ledger: Ledger) -> list[Mutation]:
    return list_mutations(ledger, SEED)


def test_an_untouched_ledger_is_verified(ledger: Ledger) -> None:
    for found in (verify_ledger(ledger.settings), verify_bundle(ledger.bundle, ledger.trust)):
        assert [one for one in found if one.ok is False] == []


def test_everything_is_changed_at_some_time(listed: list[Mutation]) -> None:
    assert len(listed) > 1_000
    assert {one.kind for one in listed} == set(SAMPLE)


@pytest.mark.parametrize("kind", SAMPLE)
def test_what_is_changed_is_named(kind: str, ledger: Ledger, listed: list[Mutation]) -> None:
    of_kind = [one for one in listed if one.kind == kind]
    unnamed, tried = [], 0
    for one in random.Random(SEED).sample(of_kind, len(of_kind)):
        if tried == SAMPLE[kind]:
            break
        named = try_mutation(ledger, one)
        tried += named is not None
        if named == "":
            unnamed.append(one.name)
    assert (tried, unnamed) == (min(SAMPLE[kind], len(of_kind)), [])


def test_the_campaign_notices_what_is_not_found(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that is left out is missed."""
    monkeypatch.setattr(mutations, "verify_ledger", lambda *given, **more: iter(()))
    link = ledger.settings.published
    one = Mutation("link", "gone", link, link.unlink)
    assert try_mutation(ledger, one) == ""
    assert link.exists()
