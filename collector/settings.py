"""Settings of the collector and of the label policy."""

from __future__ import annotations

import re
from datetime import timedelta

from pydantic import Field, model_validator

from collector.labels import DEFAULT_RULES, Combination, LabelPolicy, LabelRule, ValueKind
from collector.quarantine import QuarantineLimits
from runtime.configuration import Section
from runtime.rpc.server import RpcSettings

TYPE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class LabelRuleSettings(Section):
    """One line of the label policy."""

    label: float = Field(ge=0, le=1)
    """What the interaction is worth by itself, 0 to 1."""

    acts: bool
    """Whether the user thereby acted upon the recommendation."""

    value: ValueKind = ValueKind.ANY
    """What `value` means: `any`, `seconds` (spent) or `stars` (0 to 5, required; the label is stars ÷ 5)."""

    extra: float = Field(0.0, ge=0, le=1)
    """What full time adds to the label, for `seconds`."""

    full_seconds: float = Field(60.0, gt=0)
    """The time that counts as full, for `seconds`."""


class LabelSettings(Section):
    """How good each interaction says its impression was."""

    combination: Combination = Combination.MAX
    """How several interactions with one impression combine: `max`, `sum`, `last` or `decayed`. Changing it calls for a rebuild."""

    types: dict[str, LabelRuleSettings] = Field(default_factory=dict)
    """Types added to the default policy, or put in place of its lines, as in `[labels.types.bookmark]`."""

    @model_validator(mode="after")
    def _type_names(self) -> LabelSettings:
        for name in self.types:
            if not TYPE_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a type's name; expected lower-case letters, digits and _, as in ai_usage")
        return self

    def policy(self) -> LabelPolicy:
        """The whole table: the default one with what is set here."""
        added = {name: LabelRule(**rule.model_dump()) for name, rule in self.types.items()}
        return LabelPolicy({**DEFAULT_RULES, **added}, self.combination)


class RetentionSettings(Section):
    """How long the ledger's entries are kept, by when the server received them. Tallies outlive them."""

    interactions_days: float = Field(0.0, ge=0)
    """Days that interactions are kept; 0: for ever."""

    slates_days: float = Field(0.0, ge=0)
    """Days that slates are kept, with what became of their impressions; 0: for ever."""

    sessions_days: float = Field(0.0, ge=0)
    """Days that sessions are kept; 0: for ever."""

    quarantine_days: float = Field(30.0, gt=0)
    """Days that refused entries are kept."""

    quarantine_entries: int = Field(100_000, ge=0)
    """Refused entries kept at most; the oldest go first."""

    quarantine_bytes: int = Field(256 * 2**20, ge=2**20)
    """Bytes that refused entries take at most, before MongoDB compresses them; the oldest go first. Of one entry 64 KiB are kept, and what
    is longer is cut and cannot be replayed.
    """

    sweep_seconds: float = Field(600.0, gt=0)
    """How often what is old enough is deleted."""

    def quarantine_limits(self) -> QuarantineLimits:
        """Those of the quarantine."""
        return QuarantineLimits(entries=self.quarantine_entries, byte_count=self.quarantine_bytes, age=timedelta(days=self.quarantine_days))


class CollectorSettings(RpcSettings):
    """How what happened is taken in and folded."""

    capacity_entries: int = Field(20_000, ge=1_000)
    """Entries waiting to be written at most, per kind; beyond it calls are refused with RESOURCE_EXHAUSTED."""

    capacity_bytes: int = Field(64 * 2**20, ge=2**20)
    """Bytes waiting to be written at most, per kind, as the messages were sent."""

    write_entries: int = Field(2_000, ge=1, le=100_000)
    """Entries that one write carries at most."""

    writes_at_once: int = Field(2, ge=1, le=64)
    """Writes under way at once at most, per kind; calls that come meanwhile share the next one."""

    fold_entries: int = Field(16_000, ge=1, le=20_000)
    """Interactions that one transaction of the fold takes in at most."""

    fold_poll_seconds: float = Field(0.2, gt=0, le=60)
    """How long the fold rests when nothing is pending; after a transaction that took all there was it rests up to a second, so that
    entries gather."""

    lease_seconds: float = Field(4.0, ge=1, le=600)
    """How long a fold worker that no longer answers keeps others waiting."""
