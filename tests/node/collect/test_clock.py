"""The clock of readings: steps of the wall clock, either way."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger.collect.clock import JUMP_US, SLEW_PPM, Clock

_START_NS = 1_700_000_000_000_000_000


class Times:
    """A wall clock that can be set, and the monotonic clock that can't."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monotonic, self.wall = 5_000_000_000, _START_NS
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.monotonic)
        monkeypatch.setattr(time, "time_ns", lambda: self.wall)

    def pass_us(self, us: int, step_us: int = 0) -> None:
        self.monotonic += us * 1000
        self.wall += (us + step_us) * 1000


def test_time_goes_on_when_the_wall_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times(monkeypatch)
    clock = Clock()
    times.pass_us(1_000_000, step_us=-3_600_000_000)
    assert clock.check() == 0
    assert clock.offset_us == -3_600_000_000
    before = clock.at_us(times.monotonic)
    times.pass_us(1_000_000)
    after = clock.at_us(times.monotonic)
    assert after - before == 1_000_000 - SLEW_PPM


def test_a_step_forward_is_followed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times(monkeypatch)
    clock = Clock()
    times.pass_us(10_000, step_us=2 * JUMP_US)
    assert clock.check() == 2 * JUMP_US
    assert clock.at_us(times.monotonic) == times.wall // 1000
    assert clock.offset_us == 0


def test_a_small_difference_is_worked_off(monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times(monkeypatch)
    clock = Clock()
    times.pass_us(0, step_us=50_000)
    for _ in range(200):
        clock.check()
        times.pass_us(1_000_000)
    assert clock.check() == 0
    assert abs(clock.offset_us) <= 1_500


def test_readings_that_exist_are_in_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times(monkeypatch)
    clock = Clock(not_before_us=_START_NS // 1000 + 7)
    assert clock.at_us(times.monotonic) == _START_NS // 1000 + 7
    assert clock.offset_us == -7


@given(
    st.lists(
        st.tuples(st.integers(0, 5_000_000), st.integers(-10_000_000, 10_000_000), st.booleans())
    )
)
def test_time_never_goes_back(steps: list[tuple[int, int, bool]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        times = Times(monkeypatch)
        clock = Clock()
        last = clock.at_us(times.monotonic)
        for us, step, check in steps:
            times.pass_us(us, step)
            if check:
                clock.check()
            now = clock.at_us(times.monotonic)
            assert now >= last
            last = now
