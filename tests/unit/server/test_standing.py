"""What is thought of a worker after its calls."""

from __future__ import annotations

from server.standing import Opinion, Standing


def opinion() -> Opinion:
    return Opinion(rest_seconds=0.5)


def test_one_slow_call_makes_a_worker_doubted_and_a_probe_makes_it_well_again() -> None:
    one = opinion()
    assert one.failed("RANKER_TIMEOUT", one.spell)
    assert (one.standing, one.reason, one.rest_seconds) == (Standing.DOUBTED, "RANKER_TIMEOUT", 0.0)
    assert one.answered_probe()
    assert (one.standing, one.reason) == (Standing.WELL, "")


def test_of_calls_under_way_at_once_only_the_first_that_fails_says_something_new() -> None:
    one = opinion()
    spell = one.spell
    assert [one.failed("RANKER_TIMEOUT", spell) for _ in range(20)] == [True] + [False] * 19
    assert one.standing is Standing.DOUBTED


def test_three_calls_in_a_row_and_it_is_left_alone_longer_each_time() -> None:
    one = opinion()
    for _ in range(3):
        one.failed("RANKER_TIMEOUT", one.spell)
    assert (one.standing, one.rest_seconds) == (Standing.AWAY, 0.5)
    rests = []
    for _ in range(6):
        one.answered_probe()
        one.failed("RANKER_TIMEOUT", one.spell)
        assert one.standing is Standing.AWAY
        rests.append(one.rest_seconds)
    assert rests == [1.0, 2.0, 4.0, 4.0, 4.0, 4.0], "eight times the first at most"


def test_a_slate_forgives_everything() -> None:
    one = opinion()
    for _ in range(3):
        one.failed("RANKER_TIMEOUT", one.spell)
    assert one.answered()
    one.failed("RANKER_TIMEOUT", one.spell)
    assert (one.standing, one.rest_seconds) == (Standing.DOUBTED, 0.0)


def test_who_cannot_be_reached_is_away_at_once_and_looked_for_without_a_rest() -> None:
    one = opinion()
    assert one.unreachable()
    assert not one.unreachable()
    assert (one.standing, one.reason, one.rest_seconds) == (Standing.AWAY, "RANKER_UNAVAILABLE", 0.0)


def test_a_failure_of_one_request_says_nothing_of_a_worker_and_three_in_a_row_do() -> None:
    one = opinion()
    assert not one.failed("RANKER_FAILED", one.spell)
    assert not one.failed("RANKER_FAILED", one.spell)
    assert one.standing is Standing.WELL
    assert one.failed("RANKER_FAILED", one.spell)
    assert (one.standing, one.reason) == (Standing.AWAY, "RANKER_FAILED")


def test_who_speaks_nonsense_is_away_at_once_and_rests() -> None:
    one = opinion()
    assert one.failed("RANKER_FAILED", one.spell, nonsense=True)
    assert (one.standing, one.rest_seconds) == (Standing.AWAY, 0.5)
