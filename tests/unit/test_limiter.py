"""The cluster's limits, with a clock that the test moves."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorid.teacher.limiter import Limiter, Limits


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def grants(limiter, clock, *, until, tokens=1.0):
    """Times of all requests that a client who asks as often as told may send."""
    times, ends_at = [], clock.now + until
    while clock.now < ends_at:
        wait_s = limiter.take(tokens=tokens)
        if wait_s == 0:
            times.append(clock.now)
        else:
            clock.now += wait_s
    return times


def most_in_window(times, *, seconds):
    window, most = deque(), 0
    for time in times:
        window.append(time)
        while window[0] <= time - seconds:
            window.popleft()
        most = max(most, len(window))
    return most


@settings(max_examples=20)
@given(per_minute=st.integers(min_value=1, max_value=3_000))
def test_a_minute_sees_no_more_than_its_limit_and_little_less(per_minute):
    clock = Clock()
    limiter = Limiter(Limits(requests_per_minute=per_minute), clock=clock)
    times = grants(limiter, clock, until=120)
    assert most_in_window(times, seconds=60) <= per_minute * 1.001 + 1
    assert len(times) >= 2 * per_minute * 0.999 - 1


@pytest.mark.parametrize("per_second", [0.5, 1, 7, 30, 1000])
def test_a_second_sees_no_more_than_its_limit(per_second):
    clock = Clock()
    limiter = Limiter(Limits(requests_per_second=per_second), clock=clock)
    times = grants(limiter, clock, until=20)
    assert most_in_window(times, seconds=1) <= per_second * 1.02 + 1
    assert len(times) >= 20 * per_second * 0.99 - 1


def test_the_tightest_of_several_limits_decides():
    clock = Clock()
    limits = Limits(requests_per_minute=600, requests_per_second=100, tokens_per_minute=6000)
    times = grants(Limiter(limits, clock=clock), clock, until=120, tokens=100)
    assert 118 <= len(times) <= 121  # 60 requests a minute are 6,000 tokens


def test_tokens_that_were_underestimated_are_paid_back_before_the_next_request():
    clock = Clock()
    limiter = Limiter(Limits(tokens_per_minute=6000), clock=clock)
    assert limiter.take(tokens=50) == 0
    limiter.correct(estimated=50, actual=650)  # 600 more: six seconds' worth
    assert limiter.take(tokens=50) == pytest.approx(6.5, abs=0.01)


def test_a_request_larger_than_a_minute_is_sent_when_nothing_else_was():
    clock = Clock()
    limiter = Limiter(Limits(tokens_per_minute=100), clock=clock)
    assert limiter.take(tokens=1_000) == 0
    assert limiter.take(tokens=1) > 60


def test_a_429_halves_what_is_in_flight_once_and_successes_bring_it_back():
    clock = Clock()
    limiter = Limiter(Limits(max_in_flight=64), clock=clock)
    for _ in range(30):  # all that were in flight come back with it
        limiter.throttled()
    assert limiter.num_slots == 32
    clock.now += 2
    limiter.throttled()
    assert limiter.num_slots == 16
    for _ in range(16):
        limiter.succeeded()
    assert limiter.num_slots == 16  # some: one more in about as many responses as are in flight
    for _ in range(10_000):
        limiter.succeeded()
    assert limiter.num_slots == 64


def test_retry_after_stops_everybody_for_so_long():
    clock = Clock()
    limiter = Limiter(Limits(), clock=clock)
    limiter.throttled(wait_s=5)
    limiter.throttled(wait_s=2)
    assert limiter.take(tokens=1) == pytest.approx(5)
    clock.now += 5.001
    assert limiter.take(tokens=1) == 0
