"""The page architecture.md and its picture rooms.svg, from the code: rooms, floors, who knows whom, two ways through.

Floors are the layers of the import contract in pyproject.toml, what a room is for is its docstring, counts come from the imports
themselves, and each step of a way names a function that exists.
"""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
_NODE = ROOT / "flows" / "node"
_BESIDE = ("expectations", "transforms", "sql", "wattledger")
"""Packages beside `flows`: a picture of the whole house has them on the ground floor."""
_WIDTH, _LINE, _PAD, _GAP = 980, 15, 10, 12

READING = (
    ("wattledger.meters.nvml", "NvmlGpu", "A GPU is asked for its energy counter and power."),
    (
        "wattledger.collect.lane",
        "Lane",
        "A thread asks once a second; a call that hangs silences one GPU only.",
    ),
    ("wattledger.spool.journal", "Journal", "The reading is on the node's disk before it counts."),
    (
        "wattledger.spool.seal",
        "seal",
        "After some minutes the journal becomes a segment: one Parquet file.",
    ),
    ("flows.sources.gpu.reader", "stage", "The file is recognised, read and checked row by row."),
    (
        "flows.ingest.gpu",
        "ingest_gpu",
        "The gate looks at its profile; then it is stored, once, or goes to quarantine.",
    ),
    (
        "transforms.energy",
        "reduce_readings",
        "Readings are reduced to stretches within slots of five minutes, in whole numbers.",
    ),
    (
        "transforms.attribution",
        "attribute_energy",
        "The energy of a slot goes to the runs that held the GPU; the rest is idle or unallocated.",
    ),
    (
        "transforms.footprint",
        "compute_footprint_slots",
        "With PUE, grid and water it becomes facility energy, carbon and litres.",
    ),
    (
        "flows.publication.publish",
        "publish_candidate",
        "The gate passes, and the figure is in force, with everything that it rests on.",
    ),
)
INTERVAL = (
    (
        "flows.ingest.fetch_grid",
        "fetch_zone",
        "The days that are needed and not final are asked for, or a file is loaded.",
    ),
    (
        "flows.sources.grid.providers.base",
        "Provider",
        "A provider answers, page by page; asking and reading are apart.",
    ),
    (
        "flows.sources.grid.kept_answers",
        "KeptAnswers",
        "The answer is kept as it came, so that it can be read again without a token.",
    ),
    ("flows.sources.grid.reader", "read", "Its layout is recognised."),
    (
        "flows.sources.grid.series",
        "build_grid_data",
        "It becomes a series in UTC: an intensity, or the generation of a fuel, from then to then.",
    ),
    (
        "expectations.grid",
        "build_intensity_suite",
        "The gate looks for gaps, overlaps and values that cannot be.",
    ),
    (
        "flows.ingest.grid",
        "ingest_grid",
        "It is stored; a value that it revises is superseded, not overwritten.",
    ),
    (
        "flows.accounting.intensity",
        "compute_slot_signals",
        "For each slot the best tier that covers it is found: live, cached, typical, the country's year.",
    ),
    (
        "transforms.grid",
        "compute_slot_signal",
        "Intervals are weighed by the time that they cover of the slot.",
    ),
    (
        "flows.accounting.site_update",
        "update_signals",
        "Slots whose signal changed are computed again; `slot_source` says what each rests on.",
    ),
)


def package_folder(name: str) -> Path:
    """Where a package or module lies in the tree, without `.py`."""
    base = _NODE if name.split(".")[0] == "wattledger" else ROOT
    return base.joinpath(*name.split("."))


def list_modules(room: str) -> list[str]:
    """Names of a room's modules and sub-rooms; of a room that is one file, none."""
    folder = package_folder(room)
    if not folder.is_dir():
        return []
    suffix = ".sql" if room == "sql" else ".py"
    modules = [path.stem for path in folder.glob(f"*{suffix}") if not path.stem.startswith("__")]
    rooms = [
        path.name
        for path in folder.iterdir()
        if path.is_dir() and (any(path.glob("*.py")) or any(path.rglob("*.sql")))
    ]
    return sorted(modules) + [f"{name}/" for name in sorted(rooms)]


def describe_room(room: str) -> str:
    """The first sentence of a room's docstring."""
    folder = package_folder(room)
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ")


def read_floors() -> list[list[str]]:
    """Rooms by floor, the highest first, as the layers contract says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(c for c in contracts if c["type"] == "layers" and not c.get("containers"))[
        "layers"
    ]
    return [[room.strip() for room in layer.replace(":", "|").split("|")] for layer in layers]


def count_imports() -> Counter[tuple[str, str]]:
    """How many modules of a room import modules of another one."""
    rooms = [room for floor in read_floors() for room in floor] + [
        name for name in _BESIDE if name != "sql"
    ]
    pairs: Counter[tuple[str, str]] = Counter()
    for room in rooms:
        folder = package_folder(room)
        paths = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
        for path in paths:
            names = {
                target
                for node in ast.walk(ast.parse(path.read_text("utf-8")))
                for target in _imported(node)
            }
            targets = {_room_of(name, rooms) for name in names} - {None, room}
            pairs.update((room, target) for target in targets if target is not None)
    return pairs


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom) and node.module:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return []


def _room_of(name: str, rooms: list[str]) -> str | None:
    fitting = [room for room in rooms if name == room or name.startswith(f"{room}.")]
    return max(fitting, key=len, default=None)


def draw_rooms() -> str:
    """The house as SVG: a floor for each layer, a box for each room with its modules."""
    parts: list[str] = []
    top = _PAD
    for floor in [*read_floors(), list(_BESIDE)]:
        width = (_WIDTH - _GAP * (len(floor) - 1)) / len(floor)
        columns = [_wrap(list_modules(room), int((width - 2 * _PAD) / 7.4)) for room in floor]
        height = _LINE * (1 + max(len(lines) for lines in columns)) + 2 * _PAD
        for place, (room, lines) in enumerate(zip(floor, columns, strict=True)):
            left = place * (width + _GAP)
            parts += _draw_box(left, top, width, height, room.removeprefix("flows."), lines)
        top += height + _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 0 {_WIDTH + 16} {top}" '
        f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="12">\n'
        "<title>The rooms: each may import those on the floors below it</title>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _draw_box(
    left: float, top: float, width: float, height: float, room: str, lines: list[str]
) -> list[str]:
    x, y = left + _PAD, top + _PAD + _LINE - 4
    texts = [f'<text x="{x:.0f}" y="{y:.0f}" font-weight="bold" fill="#111">{escape(room)}</text>']
    texts += [
        f'<text x="{x:.0f}" y="{y + _LINE * place:.0f}" fill="#444">{escape(line)}</text>'
        for place, line in enumerate(lines, 1)
    ]
    box = (
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{height:.0f}" rx="4" '
        'fill="#f4f6f4" stroke="#7a8f7a"/>'
    )
    return [box, *texts]


def _wrap(words: list[str], most: int) -> list[str]:
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + len(word) + 3 <= most:
            lines[-1] += f" · {word}"
        else:
            lines.append(word)
    return lines


def _tell_way(title: str, steps: tuple[tuple[str, str, str], ...]) -> list[str]:
    lines = ["", f"## {title}", ""]
    for place, (module, function, sentence) in enumerate(steps, 1):
        path = _module_path(module)
        if function:
            _check_function(path, function)
        name = f"{module}.{function}" if function else module
        link = f"[`{name}`](../{path.relative_to(ROOT).as_posix()})"
        lines.append(f"{place}. {sentence} {link}")
    return lines


def _module_path(module: str) -> Path:
    folder = package_folder(module)
    if module.startswith("sql."):
        return folder.with_suffix(".sql")
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def _check_function(path: Path, name: str) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    names = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    if name.split(".")[-1] not in names:
        raise ValueError(f"{path.relative_to(ROOT)} has no {name}: correct docs/architecture.py")


def describe_architecture(note: str) -> str:
    """The text of architecture.md."""
    lines = [
        note,
        "# Architecture",
        "",
        "Sources are ingested into the warehouse, accounted, published and reported. Each station of this way is a room of",
        "`flows/`; the formulas (`transforms/`), the checks (`expectations/`) and the SQL (`sql/`) stand beside it, and",
        "`wattledger` is the package that runs on GPU nodes, alone.",
        "",
        "![The rooms](rooms.svg)",
        "",
        "A room imports only rooms on floors below its own; rooms side by side do not know each other. `make lint` holds",
        "the code to this (import-linter; the contracts are in `pyproject.toml`).",
        "",
        "| room | what it is for | imports (modules that do) |",
        "|---|---|---|",
    ]
    counts = count_imports()
    rooms = [room for floor in read_floors() for room in floor]
    for room in [*rooms, *_BESIDE]:
        below = ", ".join(
            f"{target.removeprefix('flows.')} {number}"
            for (source, target), number in sorted(
                counts.items(), key=lambda item: (-item[1], item[0])
            )
            if source == room
        )
        lines.append(f"| `{room.replace('.', '/')}` | {describe_room(room)} | {below or '–'} |")
    lines += _tell_way("The way of a reading", READING)
    lines += _tell_way("The way of a grid interval", INTERVAL)
    return "\n".join(lines) + "\n"
