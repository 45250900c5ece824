"""What a run is said to have met: known answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from tests.faults.journal import Attempt
from tests.faults.report import Enough, Hit, SceneReport, measure
from tests.faults.verdict import Verdict


def attempt(begin: float, end: float, code: str = "OK") -> Attempt:
    accepted = 1 if code == "OK" else 0
    return Attempt(kind="slates", first=0, count=1, server=0, manner="first", begin=begin, end=end, code=code, accepted=accepted)


def hit(start: float, begin: float, *, mended: float = 0.0) -> Hit:
    return Hit(kind="x", start=start, begin=begin, mended=mended, healed=begin + 1)


def test_rests_of_the_oracle_are_not_times_without_an_answer() -> None:
    # Answered until 10, nothing asked until 19, then half a second of waiting.
    calls = [attempt(9.0, 10.0), attempt(19.0, 19.5), attempt(19.6, 19.7)]
    made = hit(9.5, 9.6)
    assert measure([made], calls, 30.0) == []
    assert made.unavailable_seconds == 0.5
    assert made.calls == 1


def test_a_call_that_fails_is_a_time_without_an_answer() -> None:
    calls = [attempt(9.0, 9.1), attempt(10.0, 13.0, "UNAVAILABLE"), attempt(13.1, 13.2)]
    made = hit(9.5, 9.6)
    measure([made], calls, 30.0)
    assert made.unavailable_seconds == 13.2 - 10.0
    assert made.calls == 0


def test_what_was_acknowledged_while_nothing_could_be_is_found() -> None:
    calls = [attempt(9.0, 10.2), attempt(10.1, 10.3), attempt(10.4, 12.5)]
    # The first began before it, the last ended after it.
    assert [said.split(" ×")[0] for said in measure([hit(9.9, 10.0, mended=12.0)], calls, 30.0)] == ["1"]


def test_what_was_durable_before_may_be_recognised_while_nothing_can_be_made_so() -> None:
    def known(begin: float) -> Attempt:
        return replace(attempt(begin, begin + 0.1), manner="after", accepted=0, duplicates=1)

    fault = hit(9.9, 10.0, mended=12.0)
    assert measure([fault], [attempt(9.0, 10.2, "UNAVAILABLE"), known(10.3)], 30.0) == []
    # Sent during the fault for the first time, it cannot be durable; nor is new what is said to be known.
    assert len(measure([fault], [attempt(10.1, 10.2, "UNAVAILABLE"), known(10.3)], 30.0)) == 1
    assert len(measure([fault], [attempt(9.0, 10.2, "UNAVAILABLE"), attempt(10.3, 10.4)], 30.0)) == 1


def test_a_run_in_which_too_little_happened_does_not_count() -> None:
    verdict = Verdict(acknowledged=Counter(slates=9), resent=9)
    report = SceneReport(
        name="one",
        seed=1,
        seconds=1.0,
        hits=[hit(1, 1)],
        verdict=verdict,
        enough=Enough(acknowledged=10, hits=2, resent=10, met=1),
    )
    assert [failure.removeprefix("the run does not count: ") for failure in report.failures] == [
        "9 entries were acknowledged, and it needs 10",
        "1 faults hit, and it needs 2",
        "9 entries were sent again, and it needs 10",
        "0 faults met a call under way, and it needs 1",
    ]
