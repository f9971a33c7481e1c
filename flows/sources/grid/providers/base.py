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
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from flows.errors import BadInput, SourceError, UsageError
from flows.settings import GridApiInput
from flows.sources.grid.series import GridData, Limits
from flows.sources.secret_hosts import check_secret_host

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True)
class Question:
    """What is asked of a provider: a signal of a zone over a span of time, its end excluded."""

    source: GridApiInput
    signal: str
    first: datetime
    last: datetime

    @property
    def region(self) -> str:
        """What the provider calls the zone."""
        return self.source.region or self.source.zone

    def split(self, days: int) -> Iterator[tuple[datetime, datetime]]:
        """Its span, cut into parts that a provider answers at once."""
        start = self.first
        while start < self.last:
            end = min(start + timedelta(days=days), self.last)
            yield start, end
            start = end


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

    def pages(self, question: Question, ask: Ask) -> Iterator[Page]:
        """Ask for a span of time.

        Raises:
            SourceError: it does not answer, refuses, or knows nothing of the zone.
        """

    def read(
        self, pages: Sequence[Page], question: Question, path: Path, limits: Limits
    ) -> GridData:
        """Intensities or a generation mix from kept answers to a question.

        Raises:
            BadInput: an answer is not of the form that the provider documents, or too much of it cannot
                be understood.
        """


class ReadSecretBlock(Protocol):
    """Reads a secret from a store outside the environment, such as Prefect's Secret blocks."""

    def __call__(self, name: str) -> str:
        """The secret of that name.

        Raises:
            LookupError: there is none.
        """


def resolve_url(source: GridApiInput, provider: Provider) -> str:
    """Where a provider is asked: its own address, unless the settings name another."""
    return (source.url or provider.url).rstrip("/")


def read_secret(source: GridApiInput, provider: Provider, read_block: ReadSecretBlock) -> str:
    """The secret from the environment or a Secret block; empty where none is needed.

    Raises:
        UsageError: it is not there, or may not be sent to where the provider is asked.
    """
    if source.token_block or source.token_env or provider.token_env:
        where = f"input.grid_api {source.name!r}"
        check_secret_host(resolve_url(source, provider), where, provider.url)
    if source.token_block:
        try:
            return read_block(source.token_block)
        except LookupError:
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


def ask_each(
    requests: Iterable[Request],
    question: Question,
    ask: Ask,
    find_items: Callable[[Any, Path | str], Sequence[object]],
) -> Iterator[Page]:
    """Send one request after the other; `find_items` finds what an answer is made of.

    Raises:
        SourceError: an answer holds nothing.
    """
    for request in requests:
        page = ask(request)
        answer = parse_body(page, request.url)
        if not find_items(answer, request.url):
            raise no_data_error(question.source, request.url, f"it says {str(answer)[:120]}")
        yield page


def parse_body(page: Page, place: Path | str) -> Any:
    """The page as JSON.

    Raises:
        BadInput: it is not.
    """
    try:
        return json.loads(page.body)
    except RecursionError:
        raise BadInput("nested too deeply", where=str(place), remedy="Fetch it again") from None
    except ValueError as error:
        raise BadInput(f"not JSON: {error}", where=str(place), remedy="Fetch it again") from None


def no_data_error(source: GridApiInput, url: str, why: str) -> SourceError:
    return SourceError(
        f"no data for zone {source.region or source.zone!r}: {why}",
        where=url,
        remedy="Check `zone` and `region` of this [[input.grid_api]] and what your plan covers",
    )


def format_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")
