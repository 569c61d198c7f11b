"""Failures by kind: what an answer of a server means for this request, and for the whole job.

    failure = of_status(429, headers={"retry-after": "2"}, body="...")
    failure.kind, failure.wait_s        # "throttled", 2.0

| kind      | what                                              | then                            |
|-----------|---------------------------------------------------|---------------------------------|
| fatal     | 401, 403, 404, unknown model, quota used up       | the job stops and says why      |
| throttled | 429, 503 with Retry-After                         | wait as told, fewer in flight   |
| passing   | 408, 409, 425, 5xx, time-out, reset, damaged body | again, later, up to a budget    |
| refused   | any other 4xx: this request cannot be served      | the problem is set aside        |

Text that arrives but cannot be used is no failure of this sort: `lorid.teacher.asking` asks again.
"""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal, cast

from lorid.artifacts.retries import backoff_s

Kind = Literal["fatal", "throttled", "passing", "refused"]
FIRST_DELAY_S = 0.25
MAX_DELAY_S = 20.0
MAX_WAIT_S = 600.0
MAX_REASON_CHARS = 300
_FATAL_STATUS = {
    401: "the key is not accepted; check the variable that teacher.api.api_key_env names",
    402: "the account has no credit left; add some, then run again to resume",
    403: "the key may not do this; check its rights and the account's region",
    404: "nothing is there; check teacher.api.model and teacher.api.base_url",
}
_FATAL_CODES = {
    "insufficient_quota": "the quota is used up; raise it, then run again to resume",
    "billing_hard_limit_reached": "the account's limit is reached; raise it, then run again",
    "model_not_found": "check teacher.api.model",
    "invalid_api_key": _FATAL_STATUS[401],
    "account_deactivated": "the account is closed",
}
_PASSING_STATUS = {408, 409, 425}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why there is no response; `wait_s` is how long the server asked to be left alone."""

    kind: Kind
    reason: str
    wait_s: float | None = None


class Failed(Exception):
    """A request that brought no response."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


def of_status(status: int, *, headers: Mapping[str, str], body: str) -> Failure:
    """The failure that an HTTP answer other than a success stands for."""
    code, message = _code_and_message(body)
    reason = f"the server answered {status}{f' {code}' if code else ''}: {message}"
    wait_s = wait_asked(headers)
    fix = _FATAL_CODES.get(code) or _FATAL_STATUS.get(status)
    if fix is not None:
        return Failure(kind="fatal", reason=f"{reason}; {fix}")
    if status == 429 or (status == 503 and wait_s is not None):
        return Failure(kind="throttled", reason=reason, wait_s=wait_s)
    if status in _PASSING_STATUS or status >= 500:
        return Failure(kind="passing", reason=reason, wait_s=wait_s)
    if status < 400:
        return damaged(reason)
    return Failure(kind="refused", reason=reason)


def of_error_body(error: object) -> Failure:
    """An error that came under status 200: the status it names decides, else it may pass."""
    text = json.dumps({"error": error})
    code, message = _code_and_message(text)
    named: Any = cast("dict[str, Any]", error).get("code") if isinstance(error, dict) else None
    if isinstance(named, int) and 400 <= named < 600:
        return of_status(named, headers={}, body=text)
    if code in _FATAL_CODES:
        return Failure(kind="fatal", reason=f"{code}: {message}; {_FATAL_CODES[code]}")
    return damaged(f"an error under status 200: {code} {message}".rstrip())


def damaged(what: str) -> Failure:
    """A response that is not one: cut off, HTML of a proxy, not JSON."""
    return Failure(kind="passing", reason=short(what))


def wait_asked(headers: Mapping[str, str]) -> float | None:
    """Seconds of rest that the server asks for: Retry-After, or an empty limit's reset."""
    lower = {key.lower(): value for key, value in headers.items()}
    waits = [
        _milliseconds(lower.get("retry-after-ms", "")),
        _retry_after(lower.get("retry-after", "")),
        *(
            _duration(lower.get(f"x-ratelimit-reset-{what}", ""))
            for what in ("requests", "tokens")
            if lower.get(f"x-ratelimit-remaining-{what}", "").strip() == "0"
        ),
    ]
    known = [wait for wait in waits if wait is not None]
    return min(max(known), MAX_WAIT_S) if known else None


def delay_s(num_failed: int) -> float:
    """Seconds to wait after so many failures of one request."""
    return backoff_s(num_failed - 1, first_s=FIRST_DELAY_S, longest_s=MAX_DELAY_S)


def short(text: str) -> str:
    """One line of bounded length, whatever the server wrote."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:MAX_REASON_CHARS]


def _code_and_message(body: str) -> tuple[str, str]:
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return "", short(body)[:100] or "an empty body"
    error: Any = value.get("error", value) if isinstance(value, dict) else value
    if not isinstance(error, dict):
        return "", short(str(error))[:100]
    known = cast("dict[str, Any]", error)
    code = known.get("code") or known.get("type") or ""
    message = known.get("message") or known.get("detail") or ""
    return short(str(code))[:60], short(str(message))[:200]


def _milliseconds(text: str) -> float | None:
    seconds = _number(text)
    return None if seconds is None else seconds / 1000


def _retry_after(text: str) -> float | None:
    seconds = _number(text)
    if seconds is not None or not text.strip():
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _duration(text: str) -> float | None:
    parts = _DURATION.findall(text)
    if parts:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return _number(text)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e9 else None
