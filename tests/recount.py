"""Every figure once more, from what was sent, in a few lines of plain Python; and traffic to recount.

Written from the definitions, without a look at how the server counts: it is the oracle that the server's answers are held against.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from rankloop.v1 import stats_pb2 as stats
from rankloop.v1.tracking_pb2 import Interaction, Outcome, Session, Slate, SlateItem

LABELS = {
    "implement": 1.0,
    "complete": 1.0,
    "purchase": 1.0,
    "apply": 0.9,
    "save": 0.8,
    "favorite": 0.8,
    "watchlist": 0.8,
    "share": 0.6,
    "comment": 0.6,
    "like": 0.6,
    "act": 0.4,
    "click": 0.4,
    "ai_usage": 0.3,
    "abandon": 0.1,
    "dismiss": 0.0,
}
PASSIVE = {"view", "abandon", "dismiss"}


def label(entry: Interaction) -> float:
    """What the default policy makes of it."""
    if entry.type == "rate":
        return entry.value / 5
    if entry.type == "view":
        return 0.1 + 0.3 * min(entry.value / 60, 1) if entry.HasField("value") else 0.1
    return LABELS[entry.type]


def occurred(entry: Interaction | Outcome) -> datetime:
    """When."""
    return entry.occur_time.ToDatetime(tzinfo=UTC)


def shown(slate: Slate) -> datetime:
    """When."""
    return slate.show_time.ToDatetime(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Impression:
    """One item of one slate, with all that became of it, oldest first."""

    slate: Slate
    item: SlateItem
    position: int
    interactions: tuple[Interaction, ...]

    def has(self, interaction_type: str) -> bool:
        """Whether there was one of this type."""
        return any(one.type == interaction_type for one in self.interactions)

    @property
    def acts(self) -> list[Interaction]:
        """Interactions that acted upon it."""
        return [one for one in self.interactions if one.type not in PASSIVE]


@dataclass(slots=True)
class Sent:
    """What was sent, each once. Every time is stated, and at a full millisecond."""

    slates: list[Slate] = field(default_factory=list)
    interactions: list[Interaction] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    catalogue: dict[str, str] = field(default_factory=dict)
    """Item types by item."""
    costs: dict[str, float] = field(default_factory=dict)
    """The number `cost` of items of the catalogue."""

    def item(self, item_id: str, start: datetime, end: datetime) -> stats.ItemStats:
        """Figures of one item."""
        entries = [one for one in self.interactions if one.item_id == item_id and start <= occurred(one) < end]
        impressions = [one for one in self.impressions(start, end) if one.item.item_id == item_id]
        counts = Counter(one.type for one in entries)
        clicked = sum(one.has("click") for one in impressions)
        outcomes = [one for one in self.outcomes if one.item_id == item_id and start <= occurred(one) < end]
        return stats.ItemStats(
            item_id=item_id,
            interaction_count=len(entries),
            counts=counts,
            click_through_rate=rate(counts["click"], counts["view"]),
            implementation_rate=rate(counts["implement"], counts["click"]),
            click_through_rate_interval=wilson(counts["click"], counts["view"]) if counts["click"] <= counts["view"] else None,
            implementation_rate_interval=wilson(counts["implement"], counts["click"]) if counts["implement"] <= counts["click"] else None,
            avg_label=mean(label(one) for one in entries),
            impression_count=len(impressions),
            clicked_impression_count=clicked,
            ctr=rate(clicked, len(impressions)),
            ctr_interval=wilson(clicked, len(impressions)),
            avg_position=mean(one.position for one in impressions),
            outcome_value=sum(one.value for one in outcomes),
        )

    def user(self, user_id: str, start: datetime, end: datetime) -> stats.UserStats:
        """Figures of one user."""
        entries = [one for one in self.interactions if one.user_id == user_id and start <= occurred(one) < end]
        impressions = [one for one in self.impressions(start, end) if one.slate.user_id == user_id]
        counts = Counter(one.type for one in entries)
        by_type: Counter[str] = Counter()
        for one in entries:
            if item_type := self.item_type(one):
                by_type[item_type] += label(one)  # type: ignore[assignment]
        total = sum(by_type.values())
        found = stats.UserStats(
            user_id=user_id,
            interaction_count=len(entries),
            counts=counts,
            type_preferences={name: share / total for name, share in by_type.items() if share},
            click_through_rate=rate(counts["click"], counts["view"]),
            implementation_rate=rate(counts["implement"], counts["click"]),
            click_through_rate_interval=wilson(counts["click"], counts["view"]) if counts["click"] <= counts["view"] else None,
            implementation_rate_interval=wilson(counts["implement"], counts["click"]) if counts["implement"] <= counts["click"] else None,
            avg_engagement=mean(label(one) for one in entries),
            impression_count=len(impressions),
            clicked_impression_count=sum(one.has("click") for one in impressions),
            dismissed_impression_count=sum(one.has("dismiss") for one in impressions),
            slate_count=sum(slate.user_id == user_id and start <= shown(slate) < end for slate in self.slates),
            session_count=sum(start <= began < end for began in self.session_starts(user_id)),
        )
        if entries:
            found.last_interaction_time.FromDatetime(max(map(occurred, entries)))
        return found

    def performance(
        self, start: datetime, end: datetime, *dimensions: tuple[str, Callable[[Impression], str]]
    ) -> dict[tuple[str, ...], stats.PerformanceRow]:
        """Figures of slates by groups: `dimensions` are names and what an impression's value in each is."""
        groups: dict[tuple[str, ...], list[Impression]] = {}
        for impression in self.impressions(start, end):
            groups.setdefault(tuple(value(impression) for _, value in dimensions), []).append(impression)
        inside = any(name in ("position", "tier") for name, _ in dimensions)
        rows: dict[tuple[str, ...], stats.PerformanceRow] = {}
        for key, impressions in groups.items():
            pairs = {(one.slate.ranking_id, one.item.item_id) for one in impressions}
            ranking_ids = {ranking_id for ranking_id, _ in pairs}
            earned = [
                one for one in self.outcomes if one.ranking_id in ranking_ids and (not inside or (one.ranking_id, one.item_id) in pairs)
            ]
            rows[key] = performance_row(dict(zip((name for name, _ in dimensions), key, strict=True)), impressions, earned)
        return rows

    def impressions(self, start: datetime, end: datetime) -> list[Impression]:
        """Those shown in the period."""
        found = []
        for slate in self.slates:
            if start <= shown(slate) < end:
                for place, item in enumerate(slate.items, start=1):
                    touched = [one for one in self.interactions if (one.ranking_id, one.item_id) == (slate.ranking_id, item.item_id)]
                    touched.sort(key=lambda one: (occurred(one), one.event_id))
                    found.append(Impression(slate, item, item.position or place, tuple(touched)))
        return found

    def item_type(self, entry: Interaction) -> str:
        """As it says itself, else its slate, else the catalogue."""
        if entry.item_type:
            return entry.item_type
        of_slate = [
            item.item_type or self.catalogue.get(item.item_id, "")
            for slate in self.slates
            if slate.ranking_id == entry.ranking_id
            for item in slate.items
            if item.item_id == entry.item_id
        ]
        return (of_slate[0] if of_slate else "") or self.catalogue.get(entry.item_id, "")

    def session_starts(self, user_id: str) -> list[datetime]:
        """When the user's sessions began: as stated; else by session_id, and anew after more than 30 minutes."""
        stated = {one.session_id for one in self.sessions}
        starts = [one.start_time.ToDatetime(tzinfo=UTC) for one in self.sessions if one.user_id == user_id]
        moments: dict[str, list[datetime]] = {}
        for one in self.interactions:
            if one.user_id == user_id and one.session_id and one.session_id not in stated:
                moments.setdefault(one.session_id, []).append(occurred(one))
        for of_one in moments.values():
            of_one.sort()
            starts.append(of_one[0])
            starts += [later for earlier, later in itertools.pairwise(of_one) if later - earlier > timedelta(minutes=30)]
        return starts


def performance_row(dimensions: dict[str, str], impressions: Sequence[Impression], outcomes: Sequence[Outcome]) -> stats.PerformanceRow:
    """Figures of one group."""
    count = len(impressions)
    clicked, implemented, rated = (sum(one.has(name) for one in impressions) for name in ("click", "implement", "rate"))
    touched = [one for one in impressions if one.interactions]
    acted = [one for one in impressions if one.acts]
    stars = [[rating.value for rating in one.interactions if rating.type == "rate"][-1] for one in impressions if one.has("rate")]
    row = stats.PerformanceRow(
        dimensions=dimensions,
        slate_count=len({one.slate.ranking_id for one in impressions}),
        impression_count=count,
        clicked_impression_count=clicked,
        ctr=rate(clicked, count),
        ctr_interval=wilson(clicked, count),
        acted_count=len(acted),
        ignored_count=len(touched) - len(acted),
        untouched_count=count - len(touched),
        rated_impression_count=rated,
        rating_rate=rate(rated, count),
        avg_rating=mean(stars),
        favorite_count=sum(one.has("favorite") for one in impressions),
        watchlist_count=sum(one.has("watchlist") for one in impressions),
        save_count=sum(one.has("save") for one in impressions),
        implement_count=implemented,
        dismiss_count=sum(one.has("dismiss") for one in impressions),
        completed_count=sum(one.has("complete") for one in impressions),
        outcome_value=sum(one.value for one in outcomes),
        implementation_rate=rate(implemented, count),
        implementation_rate_interval=wilson(implemented, count),
        viewed_count=sum(one.has("view") for one in impressions),
        purchase_count=sum(one.has("purchase") for one in impressions),
        application_count=sum(one.has("apply") for one in impressions),
        rating_rate_interval=wilson(rated, count),
        outcome_count=len(outcomes),
    )
    varied = {one.slate.ranking_id: diversity(one.slate) for one in impressions if len(one.slate.items) > 1}
    row.varied_slate_count = len(varied)
    if varied:
        row.avg_diversity = sum(varied.values()) / len(varied)
    if acted:
        row.avg_time_to_action.FromTimedelta(sum(map(time_to_action, acted), timedelta(0)) / len(acted))
    if completed := [one for one in impressions if one.has("complete")]:
        row.avg_time_to_completion.FromTimedelta(sum(map(time_to_completion, completed), timedelta(0)) / len(completed))
    if touched:
        row.quality_score = 100 * sum(max(label(entry) for entry in one.interactions) for one in touched) / len(touched)
    return row


def time_to_action(impression: Impression) -> timedelta:
    """From shown to the first act, which callers' clocks may put before it."""
    return max(timedelta(0), occurred(impression.acts[0]) - shown(impression.slate))


def time_to_completion(impression: Impression) -> timedelta:
    """From shown to the first completion."""
    return max(timedelta(0), next(occurred(one) for one in impression.interactions if one.type == "complete") - shown(impression.slate))


def diversity(slate: Slate) -> float:
    """1 − mean pairwise similarity: shared tags ÷ all tags, an equal type being one more shared tag."""

    def similarity(one: SlateItem, other: SlateItem) -> float:
        equal = bool(one.item_type) and one.item_type == other.item_type
        return (len({*one.tags} & {*other.tags}) + equal) / max(1, len({*one.tags} | {*other.tags}) + equal)

    pairs = list(itertools.combinations(slate.items, 2))
    return 1 - sum(similarity(*pair) for pair in pairs) / len(pairs)


def rate(part: int, whole: int) -> float | None:
    """Undefined without a whole."""
    return part / whole if whole else None


def mean(values: Iterable[float]) -> float | None:
    """Undefined without values."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else None


def wilson(successes: int, trials: int) -> stats.Interval | None:
    """The roots p of (share − p)² = z² p (1 − p) ÷ n."""
    if not trials:
        return None
    z, share = 1.959963984540054, successes / trials
    a, b, c = 1 + z * z / trials, -(2 * share + z * z / trials), share * share
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return stats.Interval(low=(-b - root) / (2 * a), high=(-b + root) / (2 * a), level=0.95)


DIMENSIONS: dict[str, tuple[stats.Dimension.ValueType, Callable[[Impression], str]]] = {
    "algorithm": (stats.DIMENSION_ALGORITHM, lambda one: one.slate.algorithm),
    "model_version": (stats.DIMENSION_MODEL_VERSION, lambda one: one.slate.model_version),
    "variant": (
        stats.DIMENSION_VARIANT,
        lambda one: f"{one.slate.experiment_id}/{one.slate.variant_id}" if one.slate.experiment_id else "",
    ),
    "surface": (stats.DIMENSION_SURFACE, lambda one: one.slate.surface),
    "position": (stats.DIMENSION_POSITION, lambda one: str(one.position)),
    "tier": (stats.DIMENSION_TIER, lambda one: one.item.attributes.get("tier", "")),
}


def traffic(
    seed: int, *, first: datetime, last: datetime, slates: int = 40, interactions: int = 300, outcomes: int = 40, prefix: str = ""
) -> Sent:
    """Random slates and what people did between two moments, both sides of hours and midnights; some with slates nobody knows."""
    random_ = random.Random(seed)
    span_milliseconds = (last - first) // timedelta(milliseconds=1)

    def moment() -> datetime:
        at = first + timedelta(milliseconds=random_.randrange(span_milliseconds))
        # Every fifth on an edge: a full hour, or the last millisecond before it.
        hour = at.replace(minute=0, second=0, microsecond=0)
        return random_.choices([at, max(first, hour), max(first, hour - timedelta(milliseconds=1))], [8, 1, 1])[0]

    sent = Sent(catalogue={f"{prefix}i{number}": f"kind{number % 2}" for number in range(0, 12, 3)})
    users = [f"{prefix}u{number}" for number in range(4)]
    items = [f"{prefix}i{number}" for number in range(12)]
    for number in range(3):
        session = Session(session_id=f"{prefix}s{number}", user_id=users[number])
        session.start_time.FromDatetime(moment())
        sent.sessions.append(session)
    for number in range(slates):
        slate = Slate(
            ranking_id=f"{prefix}r{number}",
            user_id=random_.choice(users),
            algorithm=random_.choice(["hybrid", "popular", ""]),
            model_version=random_.choice(["v1", "v2"]),
            surface=random_.choice(["home", "search"]),
        )
        if random_.random() < 0.5:
            slate.experiment_id, slate.variant_id = "x", random_.choice(["a", "b"])
        slate.show_time.FromDatetime(moment())
        for item_id in random_.sample(items, random_.randint(1, 5)):
            # Of an unknown type only where the catalogue knows none either, so that what was sent says everything.
            item_type = random_.choice(["post", "job"] if item_id in sent.catalogue else ["post", "job", ""])
            item = slate.items.add(item_id=item_id, item_type=item_type, tags=random_.sample("abcd", random_.randrange(3)))
            if random_.random() < 0.5:
                item.attributes["tier"] = random_.choice(["gold", "tin"])
        sent.slates.append(slate)
    for number in range(interactions):
        slate = random_.choice(sent.slates)
        entry = Interaction(
            event_id=f"{prefix}e{number}", user_id=slate.user_id, type=random_.choice([*LABELS, *["view", "click", "rate"] * 4])
        )
        entry.item_id = random_.choice(slate.items).item_id
        match random_.randrange(8):
            case 0:
                pass  # of no impression
            case 1:
                entry.ranking_id = f"{prefix}unknown"
            case 2:
                entry.ranking_id, entry.item_id = slate.ranking_id, random_.choice(items)
            case _:
                entry.ranking_id = slate.ranking_id
        if entry.type == "rate":
            entry.value = random_.randrange(11) / 2
        elif entry.type == "abandon" and random_.random() < 0.8:
            entry.dropoff_point = random_.choice(["form", "pay.card", "$end"])
        elif entry.type == "view" and random_.random() < 0.7:
            entry.value = random_.randrange(900) / 10
        if random_.random() < 0.2:
            entry.item_type = "stated"
        if random_.random() < 0.5:
            entry.session_id = f"{prefix}s{random_.randrange(6)}" if random_.random() < 0.5 else f"{entry.user_id}-s"
        entry.occur_time.FromDatetime(moment())
        sent.interactions.append(entry)
    for number in range(outcomes):
        slate = random_.choice(sent.slates)
        outcome = Outcome(event_id=f"{prefix}o{number}", user_id=slate.user_id, type="revenue")
        if random_.random() < 0.8:
            outcome.value = random_.randint(-5_000, 90_000) / 100
        if random_.random() < 0.7:
            outcome.item_id = random_.choice([random_.choice(slate.items).item_id, random_.choice(items)])
        if random_.random() < 0.7:
            outcome.ranking_id = random_.choice([slate.ranking_id, f"{prefix}unknown"])
        outcome.occur_time.FromDatetime(moment())
        sent.outcomes.append(outcome)
    return sent
