"""Requests to grid providers as Prefect tasks: each page with its own retries, cache and rate limit."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from prefect import task
from prefect.tasks import exponential_backoff

from flows.errors import SourceError
from flows.ingest.fetch_grid import request_page
from flows.orchestration.secrets import read_secret_block
from flows.settings import GridApiInput
from flows.sources.grid.providers.base import Ask, Page, Request
from flows.sources.grid.providers.registry import load_provider


def make_ask(source: GridApiInput, *, refresh: bool) -> Ask:
    """Make what asks a provider for a page; `refresh` passes over the cache."""

    def should_retry(task: Any, task_run: Any, state: Any) -> bool:
        error = state.result(raise_on_failure=False)
        if not isinstance(error, SourceError) or not error.transient:
            return False
        wait_s = error.retry_after_s or 0.0
        if wait_s > source.max_wait_s:
            return False
        time.sleep(wait_s)
        return True

    page = ask_provider.with_options(
        retries=source.retries,
        retry_delay_seconds=exponential_backoff(0.5)(source.retries) or 0,
        retry_jitter_factor=0.5,
        retry_condition_fn=should_retry,
        cache_expiration=timedelta(minutes=source.cache_min),
        refresh_cache=refresh,
        name=f"ask {source.name} about {source.zone}",
    )
    return lambda request: page(source, request)


def _make_cache_key(context: Any, parameters: dict[str, Any]) -> str:
    """The same request to the same provider is answered from the cache.

    Prefect keeps a page by the name of its class, so one that another version kept under another name is not asked for.
    """
    kept_as = f"{Page.__module__}.{Page.__qualname__}"
    return f"{parameters['source'].provider}-{parameters['request'].key}-{kept_as}"


@task(name="ask a provider", cache_key_fn=_make_cache_key, persist_result=True)
def ask_provider(source: GridApiInput, request: Request) -> Page:
    """One page. The secret is looked up here, and is in no argument or result."""
    from prefect.concurrency.sync import rate_limit

    rate_limit(_name_limit(source), strict=False)
    return request_page(source, request, read_secret_block)


def _name_limit(source: GridApiInput) -> str:
    return f"wattledger-{source.provider}"


def set_rate_limits(sources: Sequence[GridApiInput]) -> None:
    """Set requests per second as global concurrency limits of Prefect; one that exists stands."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        for source in sources:
            name = _name_limit(source)
            try:
                client.read_global_concurrency_limit_by_name(name)
            except ObjectNotFound:
                rate = source.requests_per_s or load_provider(source.provider).requests_per_s
                client.create_global_concurrency_limit(
                    GlobalConcurrencyLimitCreate(
                        name=name, limit=max(1, math.ceil(rate)), slot_decay_per_second=rate
                    )
                )
