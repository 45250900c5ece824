"""Which users just did something."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from server.news import UserNews

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_the_newest_is_kept_and_the_longest_ago_goes() -> None:
    now = NOON
    news = UserNews(capacity=2, clock=lambda: now)
    news.hear({"a"})
    now += timedelta(seconds=1)
    news.hear({"b"})
    now += timedelta(seconds=1)
    news.hear({"a"})
    assert (news.of("a"), news.of("b"), news.of("c")) == (now, now - timedelta(seconds=1), None)
    now += timedelta(seconds=1)
    news.hear({"c"})
    assert (news.of("b"), news.of("a")) == (None, now - timedelta(seconds=1))


def test_each_news_is_later_than_the_one_before() -> None:
    news = UserNews(capacity=2, clock=lambda: NOON)
    news.hear({"a"})
    first = news.of("a")
    news.hear({"a"})
    second = news.of("a")
    assert first is not None
    assert second is not None
    assert second > first == NOON
