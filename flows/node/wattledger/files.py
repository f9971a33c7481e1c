"""Files that survive a power cut, and where they lie."""

from __future__ import annotations

import os
from pathlib import Path

_NETWORK_TYPES = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "ceph",
    "gpfs",
    "beegfs",
    "glusterfs",
    "9p",
    "fuse",
)
"""Beginnings of the types of file systems that another machine serves."""


def write_file(path: Path, text: str, *, sync: bool = True) -> None:
    """Replace a file in one step: a reader sees all of the old one or all of the new one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_on_network(folder: Path) -> bool:
    """Whether another machine serves the folder's file system, as far as this one can tell."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    except OSError:
        return False
    real = folder.resolve()
    parents = [m for m in mounts if len(m) > 2 and real.is_relative_to(m[1].replace("\\040", " "))]
    kind = max(parents, key=lambda mount: len(mount[1]), default=["", "", ""])[2]
    return kind.startswith(_NETWORK_TYPES)
