"""The slate without a worker, and what the ledger keeps of a slate."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from rankloop.v1.ranking_pb2 import Candidate, RankRequest
from rankloop.worker.v1.worker_pb2 import ServedItems
from runtime.errors import InvalidInput
from runtime.mongo import encoded_size
from server.ranking import by_prior, repeated_id
from server.slates import MAX_SLATE_BYTES, slate_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def request(*priors: float | None, **fields: object) -> RankRequest:
    candidates = [Candidate(item_id=f"i{place}") for place in range(len(priors))]
    for candidate, prior in zip(candidates, priors, strict=True):
        if prior is not None:
            candidate.prior_score = prior
    return RankRequest(candidates=candidates, **fields)  # type: ignore[arg-type]


def test_larger_priors_first_equal_ones_by_id_and_none_last() -> None:
    answer = by_prior(request(0.5, None, 2.0, 0.5, None, -1.0), "r", "RANKER_TIMEOUT")
    assert [item.item_id for item in answer.items] == ["i2", "i0", "i3", "i5", "i1", "i4"]
    assert [item.position for item in answer.items] == [1, 2, 3, 4, 5, 6]
    assert [item.score for item in answer.items] == [2.0, 0.5, 0.5, -1.0, 0.0, 0.0]
    # From the least prior to the largest: (0.5 − −1) ÷ (2 − −1).
    assert [item.relevance for item in answer.items] == pytest.approx([1.0, 0.5, 0.5, 0.0, 0.0, 0.0])
    assert {item.propensity for item in answer.items} == {1.0}
    assert (answer.ranking_id, answer.algorithm, answer.fallback_reason) == ("r", "prior_score", "RANKER_TIMEOUT")
    assert not answer.ml_ranking_applied
    assert answer.model_version == ""


def test_without_any_prior_the_order_is_the_callers() -> None:
    answer = by_prior(request(None, None, None), "r", "NO_MODEL")
    assert [item.item_id for item in answer.items] == ["i0", "i1", "i2"]
    assert answer.algorithm == "caller_order"


@pytest.mark.parametrize(("top_k", "count"), [(0, 3), (1, 1), (3, 3), (9, 3)])
def test_top_k(top_k: int, count: int) -> None:
    assert len(by_prior(request(1.0, 2.0, 3.0, top_k=top_k), "r", "NO_MODEL").items) == count


def test_a_wrong_request_is_refused_without_a_worker_too() -> None:
    with pytest.raises(InvalidInput) as refusal:
        by_prior(request(float("nan"), 1.0, top_k=-1), "r", "NO_MODEL")
    assert {one.field for one in refusal.value.violations} == {"top_k", "candidates[0].prior_score"}


def test_a_request_id_is_its_users_own() -> None:
    ids = {repeated_id("ann", "1"), repeated_id("bob", "1"), repeated_id("ann", "2"), repeated_id("an", "n1"), repeated_id("", "3:ann1")}
    assert len(ids) == 5
    assert repeated_id("ann", "1") == repeated_id("ann", "1")
    assert len(repeated_id("ann", "1")) == 32


def test_the_ledger_keeps_items_in_the_order_of_the_slate_with_what_came_with_them() -> None:
    asked = request(0.1, 0.9, user_id="u", session_id="s", surface="home", request_id="q")
    asked.candidates[1].tags.append("t")
    asked.candidates[1].attributes["tier"] = "gold"
    asked.context["device"] = "phone"
    slate = slate_of(asked, by_prior(asked, "r", "NO_MODEL"), None, NOW)
    assert [(item["item_id"], item["position"], item.get("tags"), item.get("tier")) for item in slate["items"]] == [
        ("i1", 1, ["t"], "gold"),
        ("i0", 2, None, None),
    ]
    assert (slate["_id"], slate["user_id"], slate["session_id"], slate["surface"]) == ("r", "u", "s", "home")
    assert slate["context"] == [["device", "phone"]]
    assert (slate["show_time"], slate["pending"]) == (NOW, NOW)
    assert slate["fallback_reason"] == "NO_MODEL"
    assert "features" not in slate
    assert "experiment_id" not in slate


def test_with_a_worker_types_and_tiers_are_the_catalogues_and_features_are_kept() -> None:
    asked = request(0.1, 0.9)
    served = ServedItems(item_types=["book", ""], tiers=["gold", ""], candidate_indexes=[1, 0], features=b"\0" * 16, schema_hash="h")
    slate = slate_of(asked, by_prior(asked, "r", "NO_MODEL"), served, NOW)
    assert [(item["item_id"], item["item_type"], item.get("tier")) for item in slate["items"]] == [("i1", "book", "gold"), ("i0", "", None)]
    assert (slate["features"], slate["schema_hash"]) == (b"\0" * 16, "h")


def test_a_slate_too_heavy_for_a_document_is_kept_without_its_tags() -> None:
    asked = RankRequest(candidates=[Candidate(item_id=f"i{place}", tags=["x" * 250] * 60) for place in range(1000)])
    slate = slate_of(asked, by_prior(asked, "r", "NO_MODEL"), None, NOW)
    assert slate["cut"]
    assert encoded_size(slate) < MAX_SLATE_BYTES
    assert len(slate["items"]) == 1000
    light = RankRequest(candidates=[Candidate(item_id=f"i{place}", tags=["x" * 100] * 50) for place in range(1000)])
    slate = slate_of(light, by_prior(light, "r", "NO_MODEL"), None, NOW)
    assert "cut" not in slate
    assert slate["items"][0]["tags"] == ["x" * 100] * 50
