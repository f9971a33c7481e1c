"""Which reader understands a file of GPU readings."""

from __future__ import annotations

from pathlib import Path

from flows.errors import UsageError
from flows.files import hash_file
from flows.rows import RowFaults
from flows.settings import Settings
from flows.sources.gpu import mapped, nvidia_smi, segments
from flows.sources.gpu.nvidia_smi import Options
from flows.sources.gpu.staged import Staged
from flows.times import parse_zone


def check_options(settings: Settings, options: Options, source: str) -> None:
    """Refuse what is wrong for every file, before any is read.

    Raises:
        UsageError: a source that wattledger.toml does not describe, or an unknown time zone.
    """
    if source and source not in settings.sources:
        names = ", ".join(sorted(settings.sources)) or "none"
        raise UsageError(
            f"no source {source!r} in wattledger.toml",
            remedy=f"Described there: {names}. See docs/formats.md",
        )
    if options.tz:
        parse_zone(options.tz)


def stage(
    path: Path, settings: Settings, options: Options, source: str = "", digest: str = ""
) -> Staged:
    """Read one file of readings into its staged form (docs/formats.md).

    Raises:
        BadInput: the file cannot be used.
        UsageError: an option is missing.
    """
    digest = digest or hash_file(path)
    staged = Staged(
        source=path,
        segment_id=digest,
        format="",
        path=settings.work / "staging" / f"{digest}.parquet",
        faults=RowFaults(path, settings.ingest.max_bad_rows_share),
    )
    if source:
        return mapped.read(path, staged, source, settings.sources[source], options)
    if path.suffix == ".parquet":
        return segments.read(path, staged)
    return nvidia_smi.read(path, staged, options)
