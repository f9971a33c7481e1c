"""Files that survive a power cut, where they lie, and those of other users, which may be anything."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
_READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATING = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def describe_kind(mode: int) -> str:
    """What a file is that is not a regular one, from the mode that the system gives."""
    kinds = (
        (stat.S_ISLNK, "a link"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((name for is_one, name in kinds if is_one(mode)), "a device")


@contextmanager
def open_folder(path: Path) -> Iterator[int]:
    """A folder, open for a `with` block, so that nobody can put another in its place; never through a link.

    Raises:
        OSError: it is a link, no folder, or may not be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def open_plain(path: str | Path, folder: int | None = None) -> Iterator[int]:
    """A regular file, open for reading; whatever else has its name is not opened, and never waited for.

    Args:
        path: The file.
        folder: An open folder that it is in; then `path` is its name there.

    Raises:
        OSError: it is a link, a pipe, a device or a folder, or may not be read.
    """
    # Opening a device may do something, so it is looked at before; and after, as it may be another by then.
    mode = os.stat(path, dir_fd=folder, follow_symlinks=False).st_mode
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"{describe_kind(mode)}, not a regular file", str(path))
    handle = os.open(path, _READING, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        yield handle
    finally:
        os.close(handle)


def read_plain(path: str | Path, most: int, folder: int | None = None) -> bytes:
    """The bytes of a regular file of another user, if they are not too many.

    Args:
        path: The file.
        most: How many bytes it may have.
        folder: An open folder that it is in; then `path` is its name there.

    Raises:
        OSError: it is not a regular file, or larger.
    """
    with open_plain(path, folder) as handle:
        return read_open(handle, most, path)


def read_open(handle: int, most: int, path: str | Path) -> bytes:
    """The bytes of an open file, if they are not too many; `path` is for the message.

    Raises:
        OSError: it is larger, or cannot be read.
    """
    parts, left = [], most + 1
    while left and (part := os.read(handle, min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    if not left:
        raise OSError(errno.EFBIG, f"more than {most:,} bytes", str(path))
    return b"".join(parts)


def write_file(
    path: Path,
    content: str | bytes,
    *,
    sync: bool = True,
    mode: int = 0o644,
    owner: tuple[int, int] | None = None,
) -> None:
    """Replace a file in one step: a reader sees all of the old one or all of the new one.

    Others may write the folder, too: the file is made under a name that nobody can foresee, through no link.

    Args:
        path: The file; its folder is no link.
        content: What it will hold.
        sync: Whether it has to survive a power cut.
        mode: Who may read it, as far as the umask lets them.
        owner: User and group that it is to belong to, if the system allows that.

    Raises:
        OSError: it cannot be written.
    """
    part = f".{secrets.token_hex(8)}.part"
    data = content.encode() if isinstance(content, str) else content
    with open_folder(path.parent) as folder:
        handle = os.open(part, _CREATING, mode, dir_fd=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                if owner is not None and owner != (os.geteuid(), os.getegid()):
                    _give_to(file.fileno(), owner)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(part, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(part, dir_fd=folder)
            raise
        if sync:
            os.fsync(folder)


def _give_to(handle: int, owner: tuple[int, int]) -> None:
    """Make another user the owner of a file; without the right to, it stays ours."""
    with suppress(PermissionError):
        os.fchown(handle, *owner)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_own_folder(path: Path, mode: int = 0o755) -> None:
    """Make a folder, or make sure that one of that name is ours: neither a link nor another user's.

    Raises:
        OSError: it is not, or cannot be made.
    """
    with suppress(FileExistsError):
        path.mkdir(mode)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(errno.ENOTDIR, f"{describe_kind(found.st_mode)}, not a folder", str(path))
    if found.st_uid not in (0, os.geteuid()) and found.st_uid != _find_mapped_uid(path):
        raise OSError(errno.EPERM, f"belongs to user {found.st_uid}: remove it", str(path))


def _find_mapped_uid(folder: Path) -> int | None:
    """As whom we write into a folder: a file server may take root for nobody; None where we may not write."""
    name = f".{secrets.token_hex(8)}.part"
    with suppress(OSError), open_folder(folder) as parent:
        handle = os.open(name, _CREATING, 0o600, dir_fd=parent)
        try:
            return os.fstat(handle).st_uid
        finally:
            os.close(handle)
            os.unlink(name, dir_fd=parent)
    return None


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
