"""What a ranking worker tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from ranker.scoring.engine import FALLBACKS, FOREST, LIGHTGBM

STAGES: Final = ("validate", "decode", "user", "join", "features", "score", "diversify", "explain", "encode")

STAGE_SECONDS = Histogram(
    "rankloop_ranker_stage_seconds",
    "Time of each stage of a ranking.",
    ("stage",),
    buckets=(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 1.0),
)
SLATES = Counter("rankloop_ranker_slates", "Slates made, by how.", ("algorithm",))
CANDIDATES = Counter("rankloop_ranker_candidates", "Candidates ranked.")
UNKNOWN_NAMES = Counter(
    "rankloop_ranker_unknown_feature_names", "Feature names sent that the schema does not know, once per request and name."
)
REFUSALS = Counter("rankloop_ranker_model_refusals", "Models refused, by why.", ("reason",))
SWAPS = Counter("rankloop_ranker_model_swaps", "Times another model began to serve.")
MODEL_LOADED = Gauge("rankloop_ranker_model_loaded", "1 while a model serves, 0 while rankings are by prior.")
MODEL_LOAD_SECONDS = Gauge("rankloop_ranker_model_load_seconds", "How long fetching, verifying and warming up the serving model took.")
SCORER = Gauge("rankloop_ranker_scorer", "1 for what walks the trees of the model that serves.", ("scorer",))
SCORER_FALLBACKS = Counter(
    "rankloop_ranker_scorer_fallbacks", "Models that LightGBM scores, by why the compiled scorer does not.", ("reason",)
)
FOLLOW_FAILURES = Counter("rankloop_ranker_follow_failures", "Polls that failed, by what was followed.", ("what",))
FOLLOWED = Gauge("rankloop_ranker_items_follow_timestamp_seconds", "When the item state last caught up, in Unix seconds.")
ITEMS = Gauge("rankloop_ranker_items", "Items in memory.")
ITEMS_REFUSED = Gauge("rankloop_ranker_items_refused", "Times an item or type found no room in memory.")
USERS = Gauge("rankloop_ranker_users", "Users whose history is in memory.")
USER_READS = Gauge("rankloop_ranker_user_reads", "Histories asked for since start, by what came of it.", ("result",))

REFUSAL_REASONS: Final = ("BAD_BUNDLE", "CANNED_SCORES_DIFFER", "NOT_FINITE", "UNKNOWN_FEATURES", "TOO_SLOW", "NOT_LOADABLE")

for _reason in REFUSAL_REASONS:
    REFUSALS.labels(_reason)
for _stage in STAGES:
    STAGE_SECONDS.labels(_stage)
for _algorithm in ("lambdarank", "prior_score", "caller_order"):
    SLATES.labels(_algorithm)
for _scorer in (FOREST, LIGHTGBM):
    SCORER.labels(_scorer)
for _reason in FALLBACKS:
    SCORER_FALLBACKS.labels(_reason)
for _what in ("items", "models"):
    FOLLOW_FAILURES.labels(_what)


def watch(gauge: Gauge, value: Callable[[], float]) -> None:
    """Lets a gauge say what `value` says whenever it is scraped."""
    gauge.set_function(value)
