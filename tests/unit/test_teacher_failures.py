"""What a server's answers mean: a table with the answers of real ones."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from lorid.teacher.failures import damaged, delay_s, of_error_body, of_status, wait_asked

ANSWERS = [
    (401, '{"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}', "fatal"),
    (403, '{"error": {"message": "Country not supported"}}', "fatal"),
    (404, '{"error": {"message": "no such model", "code": "model_not_found"}}', "fatal"),
    (404, "<html>404</html>", "fatal"),
    (402, "", "fatal"),
    # OpenAI's word for an empty account comes as a 429: waiting would never end.
    (429, '{"error": {"message": "quota", "code": "insufficient_quota"}}', "fatal"),
    (400, '{"error": {"message": "unknown model", "code": "model_not_found"}}', "fatal"),
    (429, '{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}', "throttled"),
    (429, "", "throttled"),
    (408, "", "passing"),
    (409, "", "passing"),
    (500, "<html>oops</html>", "passing"),
    (502, "", "passing"),
    (503, "", "passing"),
    (529, '{"error": {"type": "overloaded_error"}}', "passing"),
    (400, '{"error": {"message": "filtered", "code": "content_filter"}}', "refused"),
    (400, '{"error": {"message": "too long", "code": "context_length_exceeded"}}', "refused"),
    (422, '{"detail": [{"msg": "bad"}]}', "refused"),
    (413, "", "refused"),
    (302, "", "passing"),
]


@pytest.mark.parametrize(("status", "body", "kind"), ANSWERS)
def test_a_status_has_its_kind(status, body, kind):
    failure = of_status(status, headers={}, body=body)
    assert failure.kind == kind
    assert str(status) in failure.reason
    assert "\n" not in failure.reason


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 1.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m6s"}, 66.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-remaining-tokens": "3000", "x-ratelimit-reset-tokens": "9s"}, None),
        ({"retry-after": "999999"}, 600.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({}, None),
    ],
)
def test_waits_are_read_from_headers(headers, seconds):
    assert wait_asked(headers) == (None if seconds is None else pytest.approx(seconds))


def test_retry_after_may_be_a_date():
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    wait_s = wait_asked({"retry-after": at})
    assert wait_s is not None
    assert 25 < wait_s <= 30


def test_a_503_that_names_a_time_is_the_servers_pace():
    assert of_status(503, headers={"retry-after": "2"}, body="").kind == "throttled"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429, "message": "slow"}, "throttled"),
        ({"code": 502, "message": "provider"}, "passing"),
        ({"code": "insufficient_quota"}, "fatal"),
        ({"message": "something"}, "passing"),
        ("text", "passing"),
        ([1], "passing"),
    ],
)
def test_an_error_under_status_200_is_an_error(error, kind):
    assert of_error_body(error).kind == kind


def test_a_reason_is_one_bounded_line_whatever_the_server_wrote():
    body = json.dumps({"error": {"message": "\x1b[31mred\nline" + "x" * 10_000}})
    reason = of_status(500, headers={}, body=body).reason
    assert reason.isprintable()
    assert len(reason) < 400
    assert len(damaged("y" * 10_000).reason) <= 300


def test_delays_double_up_to_a_bound_and_differ():
    assert delay_s(1) <= 0.25
    assert 10 <= delay_s(50) <= 20
    assert len({delay_s(3) for _ in range(20)}) > 10
