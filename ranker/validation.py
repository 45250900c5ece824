"""What a ranking request must look like. Wrong ones are told every field that is wrong; right ones are passed quickly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from math import isfinite
from typing import Final

import numpy as np

from rankloop.v1.ranking_pb2 import Boost, Candidate, Cap, Exclusion, Exploration, ExplorationPolicy, Pin, RankRequest, Target
from runtime.errors import InvalidInput, Violation
from runtime.timestamps import is_valid

MAX_CANDIDATES: Final = 1000
MAX_ID_BYTES: Final = 256
MAX_TEXT_BYTES: Final = 1024
MAX_TAGS: Final = 64
MAX_ATTRIBUTES: Final = 64
MAX_FEATURES: Final = 256
MAX_CONTEXT: Final = 64
MAX_RULES: Final = 100
MAX_FACTOR: Final = 1000.0
MAX_ADDEND: Final = 10.0
MAX_SPREAD: Final = 10.0
MAX_VIOLATIONS: Final = 100
"""Fields at fault that are collected; whoever repairs these finds the others."""

_SHORT: Final = MAX_ID_BYTES // 4
"""Characters that fit whatever they are: UTF-8 takes four bytes at most."""
_SHORT_TEXT: Final = MAX_TEXT_BYTES // 4


def check(request: RankRequest, *, embedding_size: int | None = None, plain: bool = False) -> None:
    """Passes a request that can be ranked.

    Args:
        request: as the caller sent it.
        plain: whether nothing is wrong with the candidates, as somebody looked already.
        embedding_size: the size that embeddings of the deployment have; None: not known, they must only agree with each other.

    Raises:
        InvalidInput: with every field at fault (the first 100), as in `candidates[3].item_id` or `candidates[2].features["x"]`.
    """
    violations = _Violations()
    _check_envelope(request, violations)
    if request.HasField("exploration"):
        _check_exploration(request.exploration, violations)
    if request.HasField("rules"):
        _check_rules(request, violations)
    if not 1 <= len(request.candidates) <= MAX_CANDIDATES:
        expected = f"1 to {MAX_CANDIDATES} candidates; there are {len(request.candidates)}"
        violations.add("candidates", "OUT_OF_RANGE" if request.candidates else "MISSING", expected)
    else:
        if not plain and not _plain(request.candidates, embedding_size):
            _check_candidates(request.candidates, embedding_size, violations)
        _check_matrix(request, violations)
    violations.throw()


class _Violations:
    def __init__(self) -> None:
        self._found: list[Violation] = []

    @property
    def full(self) -> bool:
        return len(self._found) >= MAX_VIOLATIONS

    def add(self, field: str, reason: str, description: str) -> None:
        if not self.full:
            self._found.append(Violation(field=field, reason=reason, description=description))

    def id(self, field: str, value: str, *, required: bool = False) -> None:
        if required and not value:
            self.add(field, "MISSING", f"1 to {MAX_ID_BYTES} bytes; it is empty")
        elif len(value) > _SHORT and (size := len(value.encode())) > MAX_ID_BYTES:
            self.add(field, "TOO_LONG", f"at most {MAX_ID_BYTES} bytes; it has {size}")

    def count(self, field: str, values: Sized, limit: int, unit: str) -> None:
        if len(values) > limit:
            self.add(field, "TOO_MANY", f"at most {limit} {unit}; there are {len(values)}")

    def numbers(self, field: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if not isfinite(value):
                self.add(f'{field}["{name}"]', "NOT_FINITE", f"a finite number; it is {value}; leave out what is missing")

    def texts(self, field: str, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            self.id(f'{field}["{name[:32]}"]', name, required=True)
            if len(value) > _SHORT_TEXT and (size := len(value.encode())) > MAX_TEXT_BYTES:
                self.add(f'{field}["{name[:32]}"]', "TOO_LONG", f"at most {MAX_TEXT_BYTES} bytes; it has {size}")

    def throw(self) -> None:
        if self._found:
            raise InvalidInput(self._found)


def _check_envelope(request: RankRequest, violations: _Violations) -> None:
    violations.id("user_id", request.user_id)
    violations.id("session_id", request.session_id)
    violations.id("surface", request.surface)
    violations.id("request_id", request.request_id)
    violations.id("model_version", request.model_version)
    violations.count("context", request.context, MAX_CONTEXT, "entries")
    violations.texts("context", request.context)
    violations.count("context_numbers", request.context_numbers, MAX_CONTEXT, "entries")
    violations.numbers("context_numbers", request.context_numbers)
    if request.top_k < 0:
        violations.add("top_k", "OUT_OF_RANGE", f"0 (all) or more; it is {request.top_k}")
    # Written so that NaN is outside too.
    if request.HasField("mmr_lambda") and not 0.0 <= request.mmr_lambda <= 1.0:
        violations.add("mmr_lambda", "OUT_OF_RANGE", f"0 to 1; it is {request.mmr_lambda}")


def _plain(candidates: Iterable[Candidate], embedding_size: int | None) -> bool:
    """Whether nothing at all is wrong with the candidates; a few checks each, and no word about which."""
    ids: set[str] = set()
    total = 0.0
    count = 0
    for candidate in candidates:
        count += 1
        item_id, features, embedding = candidate.item_id, candidate.features, candidate.embedding
        if not item_id or len(item_id) > _SHORT or len(candidate.item_type) > _SHORT:
            return False
        ids.add(item_id)
        total += candidate.prior_score
        if features:
            if len(features) > MAX_FEATURES:
                return False
            total += sum(features.values())
        if embedding:
            if embedding_size is None:
                embedding_size = len(embedding)
            if len(embedding) != embedding_size:
                return False
            total += sum(embedding)
        tags, attributes = candidate.tags, candidate.attributes
        if tags and (len(tags) > MAX_TAGS or max(map(len, tags)) > _SHORT):
            return False
        if attributes:
            if len(attributes) > MAX_ATTRIBUTES or "" in attributes or max(map(len, attributes)) > _SHORT:
                return False
            if max(map(len, attributes.values())) > _SHORT_TEXT:
                return False
        if candidate.HasField("create_time") and not is_valid(candidate.create_time):
            return False
    # One number that is not finite makes the sum so; finite ones may too, and are then looked at one by one.
    return len(ids) == count and isfinite(total)


def _check_candidates(candidates: Iterable[Candidate], embedding_size: int | None, violations: _Violations) -> None:
    first_of: dict[str, int] = {}
    for place, candidate in enumerate(candidates):
        path = f"candidates[{place}]"
        if violations.full:
            return
        item_id = candidate.item_id
        violations.id(f"{path}.item_id", item_id, required=True)
        if item_id and first_of.setdefault(item_id, place) != place:
            violations.add(f"{path}.item_id", "DUPLICATE", f"each item once; it is candidates[{first_of[item_id]}] already")
        violations.id(f"{path}.item_type", candidate.item_type)
        if not isfinite(candidate.prior_score):
            violations.add(f"{path}.prior_score", "NOT_FINITE", f"a finite number; it is {candidate.prior_score}")
        violations.count(f"{path}.features", candidate.features, MAX_FEATURES, "features; use feature_matrix for many")
        violations.numbers(f"{path}.features", candidate.features)
        violations.count(f"{path}.tags", candidate.tags, MAX_TAGS, "tags")
        for index, tag in enumerate(candidate.tags):
            violations.id(f"{path}.tags[{index}]", tag)
        violations.count(f"{path}.attributes", candidate.attributes, MAX_ATTRIBUTES, "attributes")
        violations.texts(f"{path}.attributes", candidate.attributes)
        if candidate.embedding:
            embedding_size = embedding_size or len(candidate.embedding)
            if len(candidate.embedding) != embedding_size:
                violations.add(f"{path}.embedding", "WRONG_SIZE", f"{embedding_size} numbers; there are {len(candidate.embedding)}")
            if not all(map(isfinite, candidate.embedding)):
                violations.add(f"{path}.embedding", "NOT_FINITE", "finite numbers only")
        if candidate.HasField("create_time") and not is_valid(candidate.create_time):
            violations.add(f"{path}.create_time", "OUT_OF_RANGE", "a time of the years 1 to 9999 with nanos of 0 to 999,999,999")


def _check_matrix(request: RankRequest, violations: _Violations) -> None:
    if not request.HasField("feature_matrix"):
        return
    names, values = request.feature_matrix.names, request.feature_matrix.values
    violations.count("feature_matrix.names", names, MAX_FEATURES, "names")
    seen: set[str] = set()
    for place, name in enumerate(names):
        if name in seen:
            violations.add(f"feature_matrix.names[{place}]", "DUPLICATE", f"each name once; {name} is there already")
        seen.add(name)
    expected = 8 * len(names) * len(request.candidates)
    if len(values) != expected:
        wanted = f"{expected} bytes ({len(request.candidates)} candidates × {len(names)} names × 8); there are {len(values)}"
        violations.add("feature_matrix.values", "WRONG_SIZE", wanted)
    elif values:
        infinite = np.isinf(np.frombuffer(values, dtype="<f8")).nonzero()[0]
        for cell in infinite[:MAX_VIOLATIONS].tolist():
            row, column = divmod(cell, len(names))
            field = f'feature_matrix.values[{row}]["{names[column]}"]'
            violations.add(field, "NOT_FINITE", f"a finite number, or NaN where it is missing, for candidates[{row}]")


def _check_exploration(exploration: Exploration, violations: _Violations) -> None:
    policies = ExplorationPolicy.values()
    if exploration.policy not in policies:
        violations.add("exploration.policy", "UNKNOWN", f"one of {', '.join(ExplorationPolicy.keys())}; it is {exploration.policy}")
    if exploration.HasField("epsilon") and not 0.0 <= exploration.epsilon <= 1.0:
        violations.add("exploration.epsilon", "OUT_OF_RANGE", f"0 to 1; it is {exploration.epsilon}")
    if exploration.HasField("spread") and not 0.0 < exploration.spread <= MAX_SPREAD:
        violations.add("exploration.spread", "OUT_OF_RANGE", f"above 0, at most {MAX_SPREAD:g}; it is {exploration.spread}")


def _check_rules(request: RankRequest, violations: _Violations) -> None:
    rules = request.rules
    kinds: Mapping[str, Sequence[Pin | Boost | Exclusion | Cap]] = {
        "pins": rules.pins,
        "boosts": rules.boosts,
        "exclusions": rules.exclusions,
        "caps": rules.caps,
    }
    for field, listed in kinds.items():
        violations.count(f"rules.{field}", listed, MAX_RULES, "rules")
        for place, rule in enumerate(listed):
            violations.id(f"rules.{field}[{place}].rule_id", rule.rule_id)
    if rules.pins:
        _check_pins(request, violations)
    for place, boost in enumerate(rules.boosts):
        path = f"rules.boosts[{place}]"
        _check_target(f"{path}.target", boost.target, violations)
        if boost.HasField("factor") and not 0.0 <= boost.factor <= MAX_FACTOR:
            violations.add(f"{path}.factor", "OUT_OF_RANGE", f"0 to {MAX_FACTOR:,g}; it is {boost.factor}")
        if not -MAX_ADDEND <= boost.addend <= MAX_ADDEND:
            violations.add(f"{path}.addend", "OUT_OF_RANGE", f"−{MAX_ADDEND:g} to {MAX_ADDEND:g}; it is {boost.addend}")
    for place, exclusion in enumerate(rules.exclusions):
        _check_target(f"rules.exclusions[{place}].target", exclusion.target, violations)
    for place, cap in enumerate(rules.caps):
        violations.id(f"rules.caps[{place}].item_type", cap.item_type)
        if cap.max_count < 0:
            violations.add(f"rules.caps[{place}].max_count", "OUT_OF_RANGE", f"0 or more; it is {cap.max_count}")


def _check_pins(request: RankRequest, violations: _Violations) -> None:
    offered = {candidate.item_id for candidate in request.candidates}
    items: dict[str, int] = {}
    positions: dict[int, int] = {}
    most = request.top_k if request.top_k > 0 else MAX_CANDIDATES
    for place, pin in enumerate(request.rules.pins):
        path = f"rules.pins[{place}]"
        violations.id(f"{path}.item_id", pin.item_id, required=True)
        if pin.item_id and pin.item_id not in offered:
            violations.add(f"{path}.item_id", "NOT_A_CANDIDATE", "one of the candidates; offer it, or leave the pin out")
        if not 1 <= pin.position <= most:
            violations.add(f"{path}.position", "OUT_OF_RANGE", f"1 to {most}; it is {pin.position}")
        if items.setdefault(pin.item_id, place) != place:
            violations.add(f"{path}.item_id", "DUPLICATE", f"each item once; rules.pins[{items[pin.item_id]}] pins it already")
        if positions.setdefault(pin.position, place) != place:
            violations.add(f"{path}.position", "DUPLICATE", f"each position once; rules.pins[{positions[pin.position]}] has it already")


def _check_target(path: str, target: Target, violations: _Violations) -> None:
    kind = target.WhichOneof("by")
    if kind is None:
        violations.add(path, "MISSING", "an item_id, an item_type or a tag")
    else:
        violations.id(f"{path}.{kind}", getattr(target, kind), required=True)
