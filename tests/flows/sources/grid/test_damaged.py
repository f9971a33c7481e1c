"""Damaged files of every form: what is untouched keeps its value, what is read is accounted for, and nothing else happens."""

from __future__ import annotations

import copy
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.errors import BadInput
from flows.sources.grid import reader
from flows.sources.grid.series import GridData, Limits
from flows.sources.grid.tables import Options
from flows.sources.verdict import judge_file
from tests.flows.sources.grid.samples import ANSWERS, TABLES, as_json, entsoe_document

OPTIONS = Options(zone="XX", tz="UTC")
Values = dict[tuple[Any, ...], tuple[float, int]]

SEEN: Counter[str] = Counter()
"""Files damaged, loaded and refused, and rows traced."""


def read(path: Path, content: bytes, options: Options = OPTIONS) -> GridData | None:
    """What a file holds; None where it is refused with a sentence."""
    path.write_bytes(content)
    SEEN["files"] += 1
    data, refused = None, ""
    try:
        with judge_file(path):
            data = reader.read(path, options, "auto", path.parent, limits=Limits(0.1))
    except BadInput as error:
        refused = str(error)
    # This is what judge_file says of an exception that nobody foresaw.
    assert "cannot be read" not in refused, refused
    if data is None:
        SEEN["refused"] += 1
        return None
    skipped = sum(data.faults.skipped.values())
    assert data.rows_read == data.rows.height + data.duplicates + skipped + data.faults.count
    assert not data.rows.null_count().sum_horizontal().item()
    SEEN["rows"] += data.rows_read
    return data


def values_of(data: GridData) -> Values:
    name = "fuel" if data.mix is not None else "signal"
    value = "generation_kw" if data.mix is not None else "intensity_g_per_kwh"
    rows = data.rows.select("zone", name, "valid_from", value, "row_no").rows()
    return {row[:3]: (row[3], row[4]) for row in rows}


WORDS = [
    "abc",
    "",
    "-",
    "N/A",
    "n/e",
    "NaN",
    "1e999",
    "-5e9",
    "99999",
    "[x]",
    '"',
    "12:30",
    "2,5",
    "1.2.3",
]


def damage(lines: list[str], rng: random.Random, separator: str) -> tuple[list[bytes], set[int]]:
    """Lines with a few of them damaged (never the header), and the numbers of those that were touched."""
    raw = [line.encode() for line in lines]
    touched: set[int] = set()
    for _ in range(rng.randint(1, 3)):
        n = rng.randrange(1, len(raw))
        touched.add(n + 1)
        kind = rng.randrange(9)
        fields = raw[n].split(separator.encode())
        if kind == 0 and raw[n]:
            i = rng.randrange(len(raw[n]))
            flipped = bytes([raw[n][i] ^ (1 << rng.randrange(8))]).replace(b"\n", b"?")
            raw[n] = raw[n][:i] + flipped.replace(b"\r", b"?") + raw[n][i + 1 :]
        elif kind == 1:
            raw[n] = raw[n][: rng.randrange(len(raw[n]) + 1)]
        elif kind == 2 and n + 1 < len(raw):
            raw[n], raw[n + 1] = raw[n] + raw[n + 1], b""
            touched.add(n + 2)
        elif kind == 3:
            raw[n] = raw[n] + b"\n" + raw[n]
        elif kind == 4:
            other = rng.randrange(1, len(raw))
            raw[n], raw[other] = raw[other], raw[n]
            touched.add(other + 1)
        elif kind == 5:
            fields[rng.randrange(len(fields))] = b""
            raw[n] = separator.encode().join(fields)
        elif kind == 6:
            fields[rng.randrange(len(fields))] = rng.choice(WORDS).encode()
            raw[n] = separator.encode().join(fields)
        elif kind == 7:
            raw[n] = raw[n] + b"\x00\x00"
        else:
            raw[n] = b"(" * 50 + raw[n]
    return raw, touched


@pytest.mark.parametrize("form", TABLES)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_tables(form: str, seed: int, tmp_path: Path) -> None:
    lines, per_line = TABLES[form]
    options = Options(tz="UTC") if form == "electricity maps" else OPTIONS
    whole = read(tmp_path / "whole.csv", "\n".join(lines).encode(), options)
    assert whole is not None
    count = values_of(whole)
    assert len(count) in ((len(lines) - 1) * per_line, (len(lines) - 1) * 2 // 3)
    rng = random.Random(seed)
    separator = ";" if ";" in lines[0] else ","
    raw, touched = damage(lines, rng, separator)
    data = read(tmp_path / "damaged.csv", b"\n".join(raw), options)
    if data is None:
        return
    found = values_of(data)
    spoilt = {key for key, (_, row) in count.items() if row in touched}
    # A damaged line may claim the time of another; then both are set aside, or the other stays.
    for key, (value, _) in count.items():
        if key in spoilt or key not in found:
            continue
        assert found[key][0] == value, f"{key} changed"
    kept = [key for key in count if key not in spoilt and key in found]
    assert len(kept) >= len(count) - len(spoilt) - 3 * per_line * len(touched)


JUNK: list[Any] = [
    None,
    "",
    "abc",
    -1e9,
    1e300,
    [],
    {},
    True,
    "99999",
    "n/e",
    "0x10",
    10**400,
    [[[]]],
]


@pytest.mark.parametrize("form", ANSWERS)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_answers(form: str, seed: int, tmp_path: Path) -> None:
    answer, place = ANSWERS[form]
    whole = read(tmp_path / "whole.json", as_json(answer).encode())
    assert whole is not None
    damaged = copy.deepcopy(answer)
    items: Any = damaged
    for key in place:
        items = items[key]
    rng = random.Random(seed)
    touched = set()
    for _ in range(rng.randint(1, 2)):
        n = rng.randrange(len(items))
        touched.add(n + 1)
        if rng.random() < 0.2:
            items[n] = rng.choice(JUNK)
        elif isinstance(items[n], dict) and items[n]:
            holder = items[n]
            field = rng.choice(list(holder))
            if isinstance(holder[field], dict) and holder[field] and rng.random() < 0.7:
                holder = holder[field]
                field = rng.choice(list(holder))
            holder[field] = rng.choice(JUNK)
    data = read(tmp_path / "damaged.json", json.dumps(damaged).encode())
    if data is None:
        return
    found, count = values_of(data), values_of(whole)
    for key, (value, row) in count.items():
        if key in found and row not in touched:
            assert found[key][0] == value


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_documents(seed: int, tmp_path: Path) -> None:
    text = entsoe_document()
    whole = read(tmp_path / "whole.xml", text.encode())
    assert whole is not None
    rng = random.Random(seed)
    points = list(re.finditer(r"<(position|quantity)>(\d+)<", text))
    chosen = rng.choice(points)
    number = points.index(chosen) // 2 + 1
    word = rng.choice([*WORDS, "7", "0", "-3", "1000000"]).replace('"', "")
    changed = text[: chosen.start(2)] + word + text[chosen.end(2) :]
    data = read(tmp_path / "damaged.xml", changed.encode())
    assert data is not None
    found = values_of(data)
    carried = 48 < number <= 96  # A03: what is missing is carried over from the point before.
    for key, (value, row) in values_of(whole).items():
        if key in found and row != number and not (carried and row in (number - 1, number)):
            assert found[key][0] == value


@pytest.mark.parametrize("form", ["xml", "json", "csv"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_bytes_anywhere(form: str, seed: int, tmp_path: Path) -> None:
    """Bytes flipped, cut and repeated anywhere, in headers too: a sentence, or a file whose rows add up."""
    rng = random.Random(seed)
    content = {
        "xml": lambda: entsoe_document(),
        "json": lambda: as_json(rng.choice(list(ANSWERS.values()))[0]),
        "csv": lambda: "\n".join(rng.choice(list(TABLES.values()))[0]),
    }[form]().encode()
    for _ in range(rng.randint(1, 4)):
        i = rng.randrange(len(content))
        kind = rng.randrange(4)
        if kind == 0:
            content = content[:i] + bytes([content[i] ^ (1 << rng.randrange(8))]) + content[i + 1 :]
        elif kind == 1:
            content = content[:i] + content[i + rng.randrange(200) :]
        elif kind == 2:
            content = content[:i] + content[max(0, i - 300) : i] + content[i:]
        else:
            content = content[: max(i, 1)]
        content = content or b"?"
    read(tmp_path / f"damaged.{form}", content)


def test_so_many_were_damaged() -> None:
    """The tests above did what they say, in whatever part they ran."""
    print(dict(SEEN))
    assert not SEEN or SEEN["rows"] > SEEN["files"] - SEEN["refused"]
