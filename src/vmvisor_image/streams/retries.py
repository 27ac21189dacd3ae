"""Retries of failed requests: conditions and pauses."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, TypeVar

from vmvisor_image.base.limits import wait
from vmvisor_image.errors import RemoteError

NUMBER: Final = re.compile(r"[0-9]{1,19}")
"""Number in a header field."""
_PAUSES: Final = (0.1, 0.4)
"""Least seconds before each retry of a failed request; a server may ask for more."""
_LONGEST_PAUSE: Final = 30
"""Most seconds that a server may ask for (Retry-After); where it asks for more, the request fails at once."""

_Answer = TypeVar("_Answer")


class WrongAnswer(Exception):
    """Cause of the error for an answer that does not fit its request; the server would give the same answer again."""


def wrong_answer(message: str) -> RemoteError:
    """Error for an answer that does not fit its request, caused by `WrongAnswer` so that it is not retried."""
    error = RemoteError(message)
    error.__cause__ = WrongAnswer()
    return error


def tried(attempt: Callable[[], _Answer], is_worth_it: Callable[[RemoteError], bool]) -> _Answer:
    """Result of an attempt, retried after a pause where it fails and `is_worth_it`; raises the last error otherwise."""
    for pause in _PAUSES:
        try:
            return attempt()
        except RemoteError as error:
            asked = _asked_pause(error)
            if not is_worth_it(error) or asked > _LONGEST_PAUSE:
                raise
        wait(max(pause, asked))
    return attempt()


def _answered(error: BaseException) -> BaseException | None:
    """Server's answer that led to an error, as aiohttp's exception; None where the server did not answer.

    aiohttp gives an answer that can't be parsed its own status, and the parser's error as the cause.
    """
    cause = error.__cause__
    while cause is not None and not isinstance(getattr(cause, "status", None), int):
        cause = cause.__cause__
    return None if cause is None or hasattr(cause.__cause__, "code") else cause


def asks_to_wait(error: RemoteError) -> bool:
    """Whether the server itself reports that it can't answer now."""
    status: int = getattr(_answered(error), "status", 0)
    return status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


def may_pass(error: RemoteError) -> bool:
    """Whether the same request may succeed later: the server has a fault, or did not answer."""
    if isinstance(error.__cause__, WrongAnswer):
        return False
    status: int = getattr(_answered(error), "status", HTTPStatus.INTERNAL_SERVER_ERROR)
    return asks_to_wait(error) or status == 0 or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _asked_pause(error: RemoteError) -> float:
    """Seconds that a server asks to wait before a retry (RFC 9110, 10.2.3); 0 where it names no time."""
    headers = getattr(_answered(error), "headers", None)
    text = (headers or {}).get("Retry-After", "").strip()
    if NUMBER.fullmatch(text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
