"""What a provider of grid data is: it asks page by page, and reads what was kept of the answers.

Asking and reading are apart, so that anybody can read the kept answers again without the provider.
A page is asked for through a function that is handed in: it holds the secret, waits, retries and
remembers; a provider only says what to ask next.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import polars as pl

from flows.errors import BadInput, SourceError, UsageError, where
from flows.settings import GridApiInput
from flows.sources.grid.reader import GridData, finish, keyed_times

if TYPE_CHECKING:
    import httpx

FORMAT = "wattledger-fetch/1"


@dataclass(frozen=True)
class Request:
    """One page as it is asked for: everything but the secret."""

    url: str
    params: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """Names the request in a cache."""
        return hashlib.sha256(json.dumps([self.url, self.params]).encode()).hexdigest()


@dataclass(frozen=True)
class Page:
    """One answer, without the secret, and when it came."""

    url: str
    params: tuple[tuple[str, str], ...]
    obtained_at: str
    body: str
    clock_skew_s: float = 0


Ask = Callable[[Request], Page]


class Provider(Protocol):
    """One outside system; see the modules beside this one."""

    url: str
    """Base address."""
    token_env: str
    """Environment variable with its secret; empty where it needs none."""
    requests_per_s: float
    """What its terms allow, or a polite guess."""
    signals: tuple[str, ...]
    """What it can give: signals of `transforms.constants.SIGNALS`, or `mix` for generation by fuel."""
    form: Literal["json", "xml"]
    """What its answers are written in."""

    def auth(self, secret: str, base: str) -> httpx.Auth | None:
        """How a request carries the secret."""

    def pages(
        self, source: GridApiInput, signal: str, first: datetime, last: datetime, ask: Ask
    ) -> Iterator[Page]:
        """Ask for a span of time.

        Raises:
            SourceError: it does not answer, refuses, or knows nothing of the zone.
        """

    def read(self, pages: Sequence[Page], source: GridApiInput, signal: str, at: Path) -> GridData:
        """Intensities or a generation mix from kept answers.

        Raises:
            BadInput: an answer is not of the form that the provider documents.
        """


@dataclass(frozen=True)
class Kept:
    """A span of answers as it is kept in a file."""

    source: GridApiInput
    signal: str
    first: datetime
    last: datetime
    pages: tuple[Page, ...]

    def as_json(self) -> str:
        """The file's text: what was asked, when, and what came back, byte for byte."""
        return json.dumps(
            {
                "format": FORMAT,
                "provider": self.source.provider,
                "feed": self.source.name,
                "zone": self.source.zone,
                "region": self.source.region,
                "signal": self.signal,
                "first": self.first.isoformat(),
                "last": self.last.isoformat(),
                "pages": [asdict(page) for page in self.pages],
            },
            ensure_ascii=False,
            indent=1,
        )


def kept(answer: dict[str, Any], path: Path) -> Kept:
    """What `Kept.as_json` wrote.

    Raises:
        BadInput: something is missing or of the wrong kind.
    """
    try:
        source = GridApiInput(
            provider=answer["provider"],
            zone=answer["zone"],
            name=answer["feed"],
            region=answer["region"],
        )
        return Kept(
            source,
            str(answer["signal"]),
            datetime.fromisoformat(answer["first"]),
            datetime.fromisoformat(answer["last"]),
            tuple(
                Page(
                    str(page["url"]),
                    tuple((str(name), str(value)) for name, value in page["params"]),
                    str(page["obtained_at"]),
                    str(page["body"]),
                )
                for page in answer["pages"]
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"not a kept answer of a provider: {error}", where=str(path), remedy="Fetch it again"
        ) from None


def read_kept(answer: dict[str, Any], path: Path) -> GridData:
    """A kept file and the intervals in it that lie in the time it was asked for, and had begun."""
    from flows.sources.grid.providers.registry import provider

    found = kept(answer, path)
    data = provider(found.source.provider).read(found.pages, found.source, found.signal, path)
    frame = data.mix if data.mix is not None else data.intensity
    assert frame is not None
    obtained = max(datetime.fromisoformat(page.obtained_at) for page in found.pages)
    inside = frame.filter(
        (pl.col("valid_from") >= found.first)
        & (pl.col("valid_from") < found.last)
        & (pl.col("valid_from") < obtained)
    )
    if frame.height and inside.is_empty():
        low, high = frame["valid_from"].min(), frame["valid_to"].max()
        raise BadInput(
            f"the answer is about {low!s} to {high!s}, but {found.first} to {found.last} was asked for",
            where=str(path),
            remedy="Check the clock of this host, and the provider's status page",
        )
    data.feed = found.source.name
    if data.mix is not None:
        data.mix = inside
    else:
        data.intensity = inside
    return data


def spans(first: datetime, last: datetime, days: int) -> Iterator[tuple[datetime, datetime]]:
    """Cut a span into parts that a provider answers at once."""
    while first < last:
        end = min(first + timedelta(days=days), last)
        yield first, end
        first = end


def base_url(source: GridApiInput, provider: Provider) -> str:
    """Where a provider is asked: its own address, unless the settings name another."""
    return (source.url or provider.url).rstrip("/")


def ask_in_parts(
    source: GridApiInput,
    parts: Iterable[Request],
    ask: Ask,
    items: Callable[[Any, Path | str], Sequence[object]],
) -> Iterator[Page]:
    """Ask for one part after the other; `items` finds what an answer is made of.

    Raises:
        SourceError: an answer holds nothing.
    """
    for request in parts:
        page = ask(request)
        answer = body_json(page, request.url)
        if not items(answer, request.url):
            raise no_data(source, request.url, f"it says {str(answer)[:120]}")
        yield page


def body_json(page: Page, at: Path | str) -> Any:
    """The page as JSON.

    Raises:
        BadInput: it is not.
    """
    try:
        return json.loads(page.body)
    except ValueError as error:
        raise BadInput(f"not JSON: {error}", where=str(at), remedy="Fetch it again") from None


def secret_of(source: GridApiInput, provider: Provider) -> str:
    """The secret from the environment or a Prefect Secret block; empty where none is needed.

    Raises:
        UsageError: it is not there.
    """
    if source.token_block:
        from prefect.blocks.system import Secret

        try:
            return str(Secret.load(source.token_block).get())  # type: ignore[union-attr]
        except ValueError:
            raise UsageError(
                f"there is no Prefect Secret block {source.token_block!r}",
                where=f"input.grid_api {source.name!r}",
                remedy="Create it in Prefect, or name an environment variable with token_env",
            ) from None
    name = source.token_env or provider.token_env
    if not name:
        return ""
    secret = os.environ.get(name, "")
    if not secret:
        raise UsageError(
            f"the environment variable {name} is not set",
            where=f"input.grid_api {source.name!r}",
            remedy="Export the provider's token under this name (docs/providers.md)",
        )
    return secret


def intensities(
    rows: Sequence[tuple[Any, Any, bool]],
    source: GridApiInput,
    signal: str,
    said: str,
    layout: str,
    at: Path,
    *,
    minutes: int,
    factor: float = 1.0,
) -> GridData:
    """A series from rows of start, value and whether the provider estimated it.

    Raises:
        BadInput: a start or a value can't be understood, named by its place in the answer.
    """
    values: list[float] = []
    for number, (start, value, _) in enumerate(rows, 1):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadInput(
                "not a usable intensity",
                where=where(at, number, "intensity", value),
                remedy=f"Fetch it again; it is about {start}",
            )
        values.append(float(value) * factor)
    starts = keyed_times([row[0] for row in rows], at)
    table = pl.DataFrame(
        {
            "zone": [source.zone] * len(rows),
            "valid_from": starts,
            "signal": [signal] * len(rows),
            "intensity_g_per_kwh": values,
            "source": [said] * len(rows),
            "is_estimated": [row[2] for row in rows],
            "row_no": range(1, len(rows) + 1),
        },
        schema={
            "zone": pl.String,
            "valid_from": pl.Datetime("us", "UTC"),
            "signal": pl.String,
            "intensity_g_per_kwh": pl.Float64,
            "source": pl.String,
            "is_estimated": pl.Boolean,
            "row_no": pl.Int64,
        },
    ).with_columns(valid_to=pl.col("valid_from") + pl.duration(minutes=minutes))
    return finish(layout, table, ["zone", "signal"], len(rows))


def no_data(source: GridApiInput, url: str, why: str) -> SourceError:
    return SourceError(
        f"no data for zone {source.region or source.zone!r}: {why}",
        where=url,
        remedy="Check `zone` and `region` of this [[input.grid_api]] and what your plan covers",
    )


def utc_text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")
