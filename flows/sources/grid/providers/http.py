"""One request to a provider, and what can go wrong with it, each in a sentence.

The secret is in the request alone: not in what is kept, printed or logged. Redirects are not followed,
as the secret would go with them.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Generator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, quote_plus

import httpx

from flows.errors import SourceError
from flows.sources.grid.providers.base import Page, Request

_MAX_BYTES = 64 * 2**20
_HIDDEN = "[secret]"


class HeaderAuth(httpx.Auth):
    """The secret in a header."""

    def __init__(self, name: str, secret: str) -> None:
        self._name, self._secret = name, secret

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers[self._name] = self._secret
        yield request


class ParamAuth(httpx.Auth):
    """The secret as a parameter of the address."""

    def __init__(self, name: str, secret: str) -> None:
        self._name, self._secret = name, secret

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.url = request.url.copy_merge_params({self._name: self._secret})
        yield request


class _Hide(logging.Filter):
    """httpx logs addresses, and some providers want the secret there."""

    def __init__(self, secret: str) -> None:
        super().__init__()
        self._secret = secret

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = hide_secret(record.getMessage(), self._secret), ()
        return True


def hide_secret(text: str, secret: str) -> str:
    """The text without the secret, however it is written there."""
    for part in {secret, secret.partition(":")[2]}:
        for written in {part, quote(part, safe=""), quote_plus(part), json.dumps(part)[1:-1]}:
            if len(written) >= 4:
                text = text.replace(written, _HIDDEN)
    return text


def send_request(
    request: Request,
    auth: httpx.Auth | None,
    secret: str,
    *,
    timeout_s: float,
    expect: str = "json",
) -> Page:
    """Ask for one page.

    Args:
        request: What to ask.
        auth: Puts the secret into the request.
        secret: What must not show up in the answer, in messages and in logs.
        timeout_s: How long to wait.
        expect: What the answer should be written in: `json` or `xml`.

    Raises:
        SourceError: with `transient` where it may help to ask again, and `retry_after_s` where the
            provider says when.
    """
    shown = str(httpx.URL(request.url).copy_with(username=None, password=None))
    logger = logging.getLogger("httpx")
    hidden = _Hide(secret)
    logger.addFilter(hidden)
    try:
        with (
            httpx.Client(timeout=timeout_s, auth=auth) as client,
            client.stream("GET", request.url, params=list(request.params)) as stream,
        ):
            answer = _read_answer(stream, shown)
    except httpx.HTTPError as error:
        raise _explain_failure(error, shown, secret, timeout_s) from None
    finally:
        logger.removeFilter(hidden)
    text = hide_secret(answer.text, secret)
    if not answer.is_success:
        raise _explain_refusal(answer, text, shown)
    _check_form(answer, text, shown, expect)
    return Page(
        request.url,
        request.params,
        datetime.now(UTC).isoformat(),
        text,
        _measure_skew(answer),
    )


def _read_answer(stream: httpx.Response, shown: str) -> httpx.Response:
    """Read an answer that may have no end, or unpack to anything.

    Raises:
        SourceError: it is longer than any answer of a provider.
    """
    body = bytearray()
    for chunk in stream.iter_bytes():
        body += chunk
        if len(body) > _MAX_BYTES:
            raise SourceError(
                f"the answer is longer than {_MAX_BYTES:,} bytes",
                where=shown,
                remedy="Check `url` of this [[input.grid_api]]",
            )
    # What is in these headers holds for the bytes on the way.
    headers = [item for item in stream.headers.multi_items() if item[0] not in _OF_THE_WAY]
    return httpx.Response(
        stream.status_code, headers=headers, content=bytes(body), request=stream.request
    )


_OF_THE_WAY = ("content-encoding", "content-length", "transfer-encoding")


def _explain_failure(
    error: httpx.HTTPError, shown: str, secret: str, timeout_s: float
) -> SourceError:
    """The sentence for a request that got no answer."""
    if isinstance(error, httpx.TimeoutException):
        text = f"no answer within {timeout_s:g} s"
        remedy = "It is asked again on the next run; or raise timeout_s"
    elif isinstance(error, httpx.RemoteProtocolError):
        text, remedy = "the answer was cut off", "It is asked again on the next run"
    else:
        text = hide_secret(f"{type(error).__name__}: {error}", secret)
        remedy = "Check the network, and `url` of this [[input.grid_api]]"
    return SourceError(text, where=shown, remedy=remedy, transient=True)


def _explain_refusal(answer: httpx.Response, text: str, shown: str) -> SourceError:
    status = answer.status_code
    reason = _find_reason(text)
    after = _read_retry_after(answer)
    if status in (401, 403):
        return SourceError(
            f"refused the token (HTTP {status}){reason}",
            where=shown,
            remedy="Check the token, and that its plan covers this zone",
        )
    if status in (402, 429):
        when = f"; it says to come back in {after:.0f} s" if after is not None else ""
        return SourceError(
            f"the quota or rate limit is used up (HTTP {status}){reason}{when}",
            where=shown,
            remedy="Lower requests_per_s, ask less often, or wait",
            transient=status == 429,
            retry_after_s=after,
        )
    if answer.is_redirect:
        return SourceError(
            f"redirects (HTTP {status}) to another address, which is not followed",
            where=shown,
            remedy="Set `url` of this [[input.grid_api]] to the provider's present address",
        )
    if status >= 500 or status == 408:
        return SourceError(
            f"has a problem of its own (HTTP {status}){reason}",
            where=shown,
            remedy="It is asked again on the next run",
            transient=True,
            retry_after_s=after,
        )
    return SourceError(
        f"does not understand the request (HTTP {status}){reason}",
        where=shown,
        remedy="Check `zone` and `region` of this [[input.grid_api]]",
    )


def _find_reason(text: str) -> str:
    """The reason that a refusal gives, in short; nothing where it is a web page."""
    if "<html" in text[:1000].lower():
        return ""
    reason = re.search(r'"(?:message|error|detail|reason)"\s*:\s*"([^"]{1,200})', text)
    if reason is None:
        reason = re.search(r"<text>([^<]{1,200})", text)
    return f": {reason[1]}" if reason else ""


def _read_retry_after(answer: httpx.Response) -> float | None:
    value = answer.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _check_form(answer: httpx.Response, text: str, shown: str, expect: str) -> None:
    head = text.lstrip()[:200].lower()
    if head.startswith(("<!doctype html", "<html")) or (expect == "json" and head[:1] == "<"):
        title = re.search(r"<title>([^<]{1,80})", text, re.IGNORECASE)
        raise SourceError(
            f"a web page came instead of {expect.upper()}" + (f": {title[1]!r}" if title else ""),
            where=shown,
            remedy="Check `url` of this [[input.grid_api]], and that no proxy or login stands between",
        )
    if expect == "json":
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            raise SourceError(
                f"the answer is not whole JSON ({len(text):,} characters)",
                where=shown,
                remedy="It is asked again on the next run",
                transient=True,
            ) from None


def _measure_skew(answer: httpx.Response) -> float:
    """How far the provider's clock is ahead of this host's, in seconds."""
    try:
        theirs = parsedate_to_datetime(answer.headers.get("Date", ""))
        return (theirs - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return 0.0
