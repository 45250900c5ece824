"""What is sent: every entry follows from a seed, its kind and its number, so that whoever has the seed can say what must be stored."""

from __future__ import annotations

import random
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

from rankloop.v1.tracking_pb2 import Interaction, Outcome, Slate
from tests.recount import LABELS, PASSIVE, label

KINDS = ("interactions", "slates", "outcomes")
FIRST_MOMENT = datetime(2025, 6, 1, 22, tzinfo=UTC)
SPAN_MILLISECONDS = 2 * 24 * 3600 * 1000 + 3600_000
"""Three calendar days and both their midnights."""
USERS, ITEMS = 50, 40
TYPES = (*LABELS, *("view", "click", "rate") * 5)

Entry = Interaction | Slate | Outcome


class Payloads:
    """The entries of a seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def entry(self, kind: str, number: int) -> Entry:
        """The entry of that kind and number; the same whenever it is asked for."""
        made: Entry = getattr(self, f"_{kind}")(number)
        return made

    def id_of(self, kind: str, number: int) -> str:
        """Its id."""
        return f"{self.seed}-{kind}-{number}"

    def number_of(self, kind: str, entry_id: str) -> int:
        """The reverse; -1: not an id of ours."""
        head, _, tail = entry_id.rpartition("-")
        return int(tail) if head == f"{self.seed}-{kind}" and tail.isdigit() else -1

    def _random(self, kind: str, number: int) -> random.Random:
        return random.Random(f"{self.seed}:{kind}:{number}")

    def _interactions(self, number: int) -> Interaction:
        random_ = self._random("interactions", number)
        entry = Interaction(event_id=self.id_of("interactions", number), type=random_.choice(TYPES), user_id=f"u{random_.randrange(USERS)}")
        # Of slates sent long ago, about now, later, and never.
        slate_number = random_.randrange(number // 4 + 20)
        items = self._slates(slate_number).items
        entry.item_id = random_.choice(items).item_id if random_.random() < 0.9 else f"i{random_.randrange(ITEMS)}"
        if random_.random() < 0.85:
            entry.ranking_id = self.id_of("slates", slate_number)
        if entry.type == "rate":
            entry.value = random_.randrange(11) / 2
        elif entry.type == "view" and random_.random() < 0.7:
            entry.value = random_.randrange(900) / 10
        elif entry.type == "abandon":
            entry.dropoff_point = random_.choice(["price", "form"])
        if random_.random() < 0.4:
            entry.item_type = random_.choice(["post", "job"])
        if random_.random() < 0.3:
            entry.position = random_.randint(1, 5)
            entry.session_id = f"s{random_.randrange(USERS)}"
            entry.surface = "home"
            entry.context["device.$kind"] = random_.choice(["phone", "desk"])
        entry.occur_time.FromDatetime(_moment(random_))
        return entry

    def _slates(self, number: int) -> Slate:
        random_ = self._random("slates", number)
        entry = Slate(
            ranking_id=self.id_of("slates", number),
            user_id=f"u{random_.randrange(USERS)}",
            algorithm=random_.choice(["hybrid", "popular", ""]),
            model_version=random_.choice(["v1", "v2"]),
            surface=random_.choice(["home", "search"]),
        )
        if random_.random() < 0.3:
            entry.experiment_id, entry.variant_id = "x", random_.choice(["a", "b"])
        with_features = random_.random() < 0.3
        for item_number in random_.sample(range(ITEMS), random_.randint(1, 6)):
            item = entry.items.add(item_id=f"i{item_number}", item_type=random_.choice(["post", "job", ""]))
            if random_.random() < 0.5:
                item.score = random_.randrange(1000) / 1000
            if random_.random() < 0.5:
                item.attributes["tier"] = random_.choice(["gold", "tin"])
            if with_features:
                item.features["roi.potential"] = random_.randrange(100) / 7
                item.features["cost"] = random_.randrange(100) / 3
        entry.show_time.FromDatetime(_moment(random_))
        return entry

    def _outcomes(self, number: int) -> Outcome:
        random_ = self._random("outcomes", number)
        slate_number = random_.randrange(number * 4 + 20)
        entry = Outcome(event_id=self.id_of("outcomes", number), user_id=f"u{random_.randrange(USERS)}", type="revenue")
        if random_.random() < 0.8:
            entry.value = random_.randint(-5_000, 90_000) / 100
        if random_.random() < 0.3:
            entry.before_value = random_.randint(1, 90_000) / 100
        if random_.random() < 0.7:
            entry.ranking_id = self.id_of("slates", slate_number)
        if random_.random() < 0.7:
            entry.item_id = random_.choice([random_.choice(self._slates(slate_number).items).item_id, f"i{random_.randrange(ITEMS)}"])
        entry.occur_time.FromDatetime(_moment(random_))
        return entry


def stored_form(entry: Entry) -> dict[str, Any]:
    """What the ledger must hold of an entry: every field that follows from what was sent."""
    if isinstance(entry, Slate):
        return _stored_slate(entry)
    form: dict[str, Any] = {"_id": entry.event_id, "user_id": entry.user_id, "type": entry.type}
    form["occur_time"] = entry.occur_time.ToDatetime(tzinfo=UTC)
    named = {name: getattr(entry, name) for name in ("item_id", "ranking_id")}
    if isinstance(entry, Interaction):
        form |= {"label": label(entry), "acts": entry.type not in PASSIVE}
        named |= {name: getattr(entry, name) for name in ("session_id", "item_type", "surface", "dropoff_point")}
        if entry.HasField("position"):
            form["position"] = entry.position
        named["context"] = sorted(map(list, entry.context.items()))
    else:
        if entry.HasField("before_value"):
            form["before_value"] = entry.before_value
        named["attributes"] = sorted(map(list, entry.attributes.items()))
    form |= {name: value for name, value in named.items() if value}
    if entry.HasField("value"):
        form["value"] = entry.value
    return form


def _stored_slate(entry: Slate) -> dict[str, Any]:
    form: dict[str, Any] = {"_id": entry.ranking_id, "show_time": entry.show_time.ToDatetime(tzinfo=UTC)}
    form |= {name: getattr(entry, name) for name in ("user_id", "surface", "algorithm", "model_version")}
    if entry.experiment_id:
        form |= {"experiment_id": entry.experiment_id, "variant_id": entry.variant_id}
        form["experiments"] = [{"id": entry.experiment_id, "variant": entry.variant_id}]
    form["items"] = []
    for place, item in enumerate(entry.items, start=1):
        kept: dict[str, Any] = {"item_id": item.item_id, "item_type": item.item_type, "position": place}
        if item.HasField("score"):
            kept["score"] = item.score
        if item.attributes:
            kept |= {"attributes": [["tier", item.attributes["tier"]]], "tier": item.attributes["tier"]}
        form["items"].append(kept)
    names = sorted(entry.items[0].features)
    if names:
        form["features"] = b"".join(struct.pack("<d", item.features[name]) for item in entry.items for name in names)
    return form


def _moment(random_: random.Random) -> datetime:
    return FIRST_MOMENT + timedelta(milliseconds=random_.randrange(SPAN_MILLISECONDS))
