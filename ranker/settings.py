"""Settings of the ranking worker."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from ranker.diversity.diversifiers import Diversifier
from ranker.features.schema import FeatureSchema, default_schema
from runtime.configuration import Section
from runtime.errors import Misconfigured
from runtime.rpc.server import RpcSettings


class FeatureSettings(Section):
    """What models see."""

    request: tuple[str, ...] = Field((), max_length=256)
    """Names of further request features that callers send: lower-case letters, digits and underscores, a letter first, 64 at most."""

    @field_validator("request")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name):
                raise ValueError(f"{name!r} is no feature name: lower-case letters, digits and underscores, a letter first, at most 64")
        if len(set(names)) != len(names):
            raise ValueError("a name is there twice")
        return names


class RankerSettings(RpcSettings):
    """How a ranking worker ranks, and what it keeps."""

    mmr_lambda: float = Field(0.7, ge=0, le=1)
    """Relevance against diversity where the request does not say; 1: relevance only."""

    diversifier: Diversifier = "mmr"
    """What makes slates varied: `mmr` (maximal marginal relevance), or `dpp` (a determinantal point process, greedily)."""

    model_poll_seconds: float = Field(0.25, gt=0, le=3600)
    """How often the registry is asked for the champion: how soon a promotion or a rollback is heard of."""

    model_budget_seconds: float = Field(0.05, gt=0, le=60)
    """The longest that scoring a hundred candidates may take, in processor time; a model that takes longer is refused."""

    item_poll_seconds: float = Field(1.0, gt=0, le=3600)
    """How often new tallies and catalogue changes are read."""

    item_overlap_seconds: float = Field(60.0, ge=0, le=3600)
    """By how much servers' clocks may differ: catalogue changes are read again over this span."""

    max_items: int = Field(2_000_000, ge=1, le=1_000_000_000)
    """Items held in memory; further ones are served as unknown."""

    max_item_types: int = Field(100_000, ge=1, le=1_000_000_000)
    """Item types held in memory; further ones are served as unknown."""

    user_cache_size: int = Field(50_000, ge=1, le=100_000_000)
    """Users whose history is kept; the least recently asked for goes first."""

    user_cache_seconds: float = Field(2.0, ge=0, le=3600)
    """How long a user's history is served without reading it again, unless a server tells of news."""

    user_read_timeout_seconds: float = Field(0.25, gt=0, le=60)
    """Longest wait for a user's history; after it the one known, or that of a stranger, is used."""

    pinned_models: int = Field(4, ge=0, le=100)
    """Models kept in memory because requests name them, beside the champion and the one before."""

    scorer: Literal["auto", "forest", "lightgbm"] = "auto"
    """What walks the trees: `forest` is compiled by numba (the extra `fast`) and gives the same bits as LightGBM sooner; `auto` takes it
    where numba is there; `forest` refuses to start without it. A forest that it cannot represent is left to LightGBM."""

    explained_features: int = Field(5, ge=1, le=100)
    """Features that `explain` lists by name per item, the largest; all others are told as one."""

    explained_items: int = Field(50, ge=1, le=1000)
    """Items of a slate that `explain` explains, the first. Each takes some ten milliseconds with a forest of 500 trees."""


def schema_of(settings: FeatureSettings) -> FeatureSchema:
    """The deployment's feature schema. Raises Misconfigured for a declared name that is computed already."""
    try:
        return default_schema(settings.request)
    except ValueError as error:
        raise Misconfigured(f"features.request: {error}") from error
