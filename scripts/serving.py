"""What a trainer has to know of the rankers that will serve its models."""

from __future__ import annotations

from ranker.settings import schema_of
from ranker.training.trainer import Serving
from scripts.configuration import Configuration


def serving_of(configuration: Configuration) -> Serving:
    """As the configuration has it. Raises Misconfigured for a declared feature that is computed already."""
    ranker = configuration.ranker
    return Serving(schema=schema_of(configuration.features), mmr_lambda=ranker.mmr_lambda, model_budget_seconds=ranker.model_budget_seconds)
