"""Answers of a provider as `wattledger fetch` keeps them: written, and read again by anybody."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from flows.errors import BadInput
from flows.settings import GridApiInput
from flows.sources.grid.providers.base import Page, Question
from flows.sources.grid.providers.registry import load_provider
from flows.sources.grid.series import GridData, Limits

FORMAT = "wattledger-fetch/1"


@dataclass(frozen=True)
class KeptAnswers:
    """A question and what came back, as it is kept in a file."""

    question: Question
    pages: tuple[Page, ...]

    def as_json(self) -> str:
        """The file's text: what was asked, when, and what came back, byte for byte."""
        source = self.question.source
        return json.dumps(
            {
                "format": FORMAT,
                "provider": source.provider,
                "feed": source.name,
                "zone": source.zone,
                "region": source.region,
                "signal": self.question.signal,
                "first": self.question.first.isoformat(),
                "last": self.question.last.isoformat(),
                "pages": [asdict(page) for page in self.pages],
            },
            ensure_ascii=False,
            indent=1,
        )


def parse_kept_answers(content: dict[str, Any], path: Path) -> KeptAnswers:
    """What `KeptAnswers.as_json` wrote.

    Raises:
        BadInput: something is missing or of the wrong kind.
    """
    try:
        source = GridApiInput(
            provider=content["provider"],
            zone=content["zone"],
            name=content["feed"],
            region=content["region"],
        )
        question = Question(
            source,
            str(content["signal"]),
            datetime.fromisoformat(content["first"]),
            datetime.fromisoformat(content["last"]),
        )
        pages = tuple(
            Page(
                str(page["url"]),
                tuple((str(name), str(value)) for name, value in page["params"]),
                str(page["obtained_at"]),
                str(page["body"]),
            )
            for page in content["pages"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"not a kept answer of a provider: {error}", where=str(path), remedy="Fetch it again"
        ) from None
    return KeptAnswers(question, pages)


def read_kept_answers(content: dict[str, Any], path: Path, limits: Limits) -> GridData:
    """The intervals in a kept file that lie in the time it was asked for and had begun by then.

    Args:
        content: The file, parsed.
        path: The file, for messages.
        limits: What is believed.

    Raises:
        BadInput: not a kept file, or all of it is about another time.
    """
    answers = parse_kept_answers(content, path)
    question = answers.question
    data = load_provider(question.source.provider).read(answers.pages, question, path, limits)
    obtained = _find_last_obtained(answers.pages, path)
    inside = data.rows.filter(
        (pl.col("valid_from") >= question.first)
        & (pl.col("valid_from") < question.last)
        & (pl.col("valid_from") < obtained)
    )
    if data.rows.height and inside.is_empty():
        low, high = data.rows["valid_from"].min(), data.rows["valid_to"].max()
        raise BadInput(
            f"the answer is about {low!s} to {high!s}, but {question.first} to {question.last} "
            "was asked for",
            where=str(path),
            remedy="Check the clock of this host, and the provider's status page",
        )
    data.faults.skip("outside of the time that was asked for", data.rows.height - inside.height)
    if data.mix is not None:
        return replace(data, feed=question.source.name, mix=inside)
    return replace(data, feed=question.source.name, intensity=inside)


def _find_last_obtained(pages: tuple[Page, ...], path: Path) -> datetime:
    """When the last page came; nothing that begins later can have been measured."""
    try:
        times = [datetime.fromisoformat(page.obtained_at) for page in pages]
        return max(time if time.tzinfo else time.replace(tzinfo=UTC) for time in times)
    except ValueError as error:
        raise BadInput(
            f"not a kept answer of a provider: {error}", where=str(path), remedy="Fetch it again"
        ) from None
