"""What the fields of a run record may be: any user of a node can write one, with anything in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_MOST_CHARS = 512
"""Characters of a name or id."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_=+@:][A-Za-z0-9._=+@: -]{0,199}")
_TEXTS = ("name", "owner", "ended_by", "pid_started", "pid_namespace", "readings")
_IDS = ("record_id", "run_id", "host", "started_at")
_MAPS = ("labels", "slurm", "kubernetes")
_GPU_FIELDS = {"gpu_uuid", "gpu_index", "model", "share_ppm", "instance"}
_MOST_GPUS = 4096
_MOST_INT, _MOST_CODE = 1 << 31, 1 << 31


def clean_text(text: str) -> str:
    """A text for one line of a table or a terminal: control characters as spaces."""
    return _CONTROL.sub(" ", text)[:_MOST_CHARS]


def is_plain_name(text: str) -> bool:
    """Whether a text can be the name of a file, and of nothing else."""
    return _PLAIN_NAME.fullmatch(text) is not None


def check_fields(fields: Mapping[str, Any]) -> None:
    """Refuse fields that are not of the kind that a record has.

    Raises:
        ValueError: one is not; the sentence names it.
    """
    for name in _IDS:
        _check_text(name, fields.get(name))
        if not fields[name]:
            raise ValueError(f"no {name}")
    for name in _TEXTS:
        _check_text(name, fields.get(name, ""))
    if fields.get("ended_at") is not None:
        _check_text("ended_at", fields["ended_at"])
    for name in _MAPS:
        _check_map(name, fields.get(name, {}))
    ranks = fields.get("ranks", {})
    if not isinstance(ranks, dict) or not all(_is_whole(rank) for rank in ranks.values()):
        raise ValueError("ranks does not map names to whole numbers")
    notes = fields.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ValueError("notes is no list of texts")
    code = fields.get("exit_code")
    if code is not None and not _is_whole(code, -_MOST_CODE):
        raise ValueError("exit_code is no whole number")
    owner = fields.get("owner_uid")
    if not _is_whole(fields.get("pid", 0)) or not _is_whole(0 if owner is None else owner):
        raise ValueError("pid or owner_uid is no whole number")
    _check_gpus(fields.get("gpus", []))


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise ValueError(f"{name} is no text")
    if len(text) > (4096 if name == "readings" else _MOST_CHARS) or _CONTROL.search(text):
        raise ValueError(f"{name} is too long, or has control characters: {text[:40]!r}")


def _check_map(name: str, mapping: object) -> None:
    if not isinstance(mapping, dict) or not all(isinstance(v, str) for v in mapping.values()):
        raise ValueError(f"{name} does not map names to texts")
    for key, value in mapping.items():
        if _CONTROL.search(key) or _CONTROL.search(value.replace("\n", "").replace("\t", "")):
            raise ValueError(f"{name} has control characters in {key[:40]!r}")


def _check_gpus(gpus: object) -> None:
    if not isinstance(gpus, list) or len(gpus) > _MOST_GPUS:
        raise ValueError("gpus is no list of GPUs")
    for held in gpus:
        if not isinstance(held, dict) or not held.keys() <= _GPU_FIELDS:
            raise ValueError("a GPU with other fields than those of a GPU")
        uuid = held.get("gpu_uuid")
        if not uuid or type(held.get("share_ppm", 1)) is not int:
            raise ValueError("a GPU without UUID or share")
        for name in ("gpu_uuid", "instance"):
            _check_text(name, held.get(name, ""))
        if held.get("model") is not None:
            _check_text("model", held["model"])
        index = held.get("gpu_index")
        if index is not None and not _is_whole(index):
            raise ValueError(f"gpu_index of {uuid} is no whole number")


def _is_whole(value: object, least: int = 0) -> bool:
    return type(value) is int and least <= value < _MOST_INT
