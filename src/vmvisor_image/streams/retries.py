"""Which requests that failed are made again, and after what pause."""

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
"""A number in a header field."""
_PAUSES: Final = (0.1, 0.4)
"""Seconds before a request that failed is made again, at least: a server may ask for more."""
_LONGEST_PAUSE: Final = 30
"""Seconds that a server may ask for (Retry-After); where it asks for more, that is an error at once."""

_Answer = TypeVar("_Answer")


class WrongAnswer(Exception):
    """Why an answer is not what was asked for: the server has understood, and would say the same again."""


def wrong_answer(message: str) -> RemoteError:
    """The error of an answer that is not what was asked for; the same would come again."""
    error = RemoteError(message)
    error.__cause__ = WrongAnswer()
    return error


def tried(attempt: Callable[[], _Answer], is_worth_it: Callable[[RemoteError], bool]) -> _Answer:
    """What an attempt gives, made again after a pause where it fails and that is worth it; the last error else."""
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
    """The answer of a server that made an error; None where there was none.

    aiohttp gives what can't be parsed a status of its own, and the parser's error as its cause.
    """
    cause = error.__cause__
    while cause is not None and not isinstance(getattr(cause, "status", None), int):
        cause = cause.__cause__
    return None if cause is None or hasattr(cause.__cause__, "code") else cause


def asks_to_wait(error: RemoteError) -> bool:
    """Whether the server itself says that it can't answer now."""
    status: int = getattr(_answered(error), "status", 0)
    return status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


def may_pass(error: RemoteError) -> bool:
    """Whether the same request may succeed: the server is in trouble, or there was none at the other end."""
    if isinstance(error.__cause__, WrongAnswer):
        return False
    status: int = getattr(_answered(error), "status", HTTPStatus.INTERNAL_SERVER_ERROR)
    return asks_to_wait(error) or status == 0 or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _asked_pause(error: RemoteError) -> float:
    """Seconds after which a server wants to be asked again (RFC 9110, 10.2.3); 0 where it does not say."""
    headers = getattr(_answered(error), "headers", None)
    text = (headers or {}).get("Retry-After", "").strip()
    if NUMBER.fullmatch(text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
