"""The machine's clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from vgpuctl.host.clock import SystemClock


def test_the_time_of_day_has_a_zone():
    before = datetime.now(UTC)
    now = SystemClock().now()
    assert now.utcoffset() == timedelta(0)
    assert before <= now <= datetime.now(UTC)


def test_the_monotonic_clock_passes_a_sleep():
    clock = SystemClock()
    before = clock.monotonic_s()
    clock.sleep(0.01)
    assert clock.monotonic_s() >= before + 0.01
