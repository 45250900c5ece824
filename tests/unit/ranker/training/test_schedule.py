"""When a cron line is due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from ranker.training.schedule import BadSchedule, Schedule
from ranker.training.settings import TrainerSettings

SATURDAY = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
MONDAY = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


def test_it_is_due_once_each_time_it_comes() -> None:
    schedule = Schedule("0 4 * * 1", SATURDAY)
    assert schedule.next_time == MONDAY
    assert not schedule.due(MONDAY - timedelta(seconds=1))
    assert schedule.due(MONDAY)
    assert not schedule.due(MONDAY)
    assert schedule.next_time == MONDAY + timedelta(weeks=1)


def test_what_was_missed_counts_as_one() -> None:
    schedule = Schedule("0 4 * * 1", SATURDAY)
    assert schedule.due(MONDAY + timedelta(weeks=3, hours=1))
    assert not schedule.due(MONDAY + timedelta(weeks=3, hours=2))
    assert schedule.next_time == MONDAY + timedelta(weeks=4)


@pytest.mark.parametrize("line", ["", "weekly", "* * *", "61 * * * *", "0 0 30 2 *"])
def test_what_is_no_cron_line_is_refused_with_an_example(line: str) -> None:
    with pytest.raises(BadSchedule, match="0 4"):
        Schedule(line, SATURDAY)


def test_the_setting_says_so_too() -> None:
    with pytest.raises(ValidationError, match="is no cron line"):
        TrainerSettings(follow_schedule="weekly")
    assert TrainerSettings(follow_schedule="").follow_schedule == ""
