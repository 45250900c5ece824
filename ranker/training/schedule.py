"""When a cron line is due."""

from __future__ import annotations

from datetime import datetime

from cronsim import CronSim, CronSimError


class BadSchedule(ValueError):
    """The line is no cron line."""


class Schedule:
    """A cron line in UTC: five fields, minute, hour, day of the month, month, day of the week."""

    def __init__(self, line: str, now: datetime) -> None:
        """Due for the first time after `now`.

        Raises:
            BadSchedule: the line cannot be read; the sentence says how one looks.
        """
        self._line = line
        try:
            self.next_time = next(CronSim(line, now))
        except CronSimError as error:
            raise BadSchedule(f"{line!r} is no cron line ({error}); expected five fields, as in '0 4 * * 1' for Mondays at four") from None
        except StopIteration:
            raise BadSchedule(f"{line!r} never comes") from None

    def due(self, now: datetime) -> bool:
        """Whether a moment of the line has come since it was last due. Moments that were missed meanwhile count as one."""
        if now < self.next_time:
            return False
        self.next_time = next(CronSim(self._line, now))
        return True
