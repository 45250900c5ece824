"""Messages that would grow out of all proportion, told from their bytes."""

from __future__ import annotations

import random

import pytest

from rankloop.v1.ranking_pb2 import Candidate, FeatureMatrix, RankRequest
from rankloop.v1.tracking_pb2 import Interaction, RecordSlatesRequest, Slate, SlateItem, TrackInteractionsRequest
from runtime.rpc.density import MOST_PARTS, too_dense


def interactions(count: int, context: int = 1) -> bytes:
    return TrackInteractionsRequest(
        interactions=[
            Interaction(
                event_id=f"event-{n:030d}", user_id="u", item_id="i" * 40, type="click", context={str(k): "x" for k in range(context)}
            )
            for n in range(count)
        ]
    ).SerializeToString()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        interactions(1),
        interactions(1000),
        interactions(1000, context=32),
        RankRequest(
            candidates=[Candidate(item_id=f"i{n}", features={f"f{k}": 1.0 for k in range(100)}) for n in range(1000)]
        ).SerializeToString(),
        RecordSlatesRequest(
            slates=[Slate(ranking_id=f"r{n}", items=[SlateItem(item_id=f"i{k}", score=1) for k in range(100)]) for n in range(1000)]
        ).SerializeToString(),
        RankRequest(feature_matrix=FeatureMatrix(values=bytes(8 * 2**20))).SerializeToString(),
    ],
)
def test_what_people_send_is_decoded(message: bytes) -> None:
    assert not too_dense(message)


@pytest.mark.parametrize(
    "message",
    [
        b"\x0a\x00" * 1_000_000,
        b"\x0a\x03\x0a\x01a" * 500_000,
        b"\x98\x06\x01" * 1_000_000,
        b"\x0d\x00\x00\x00\x00" * 1_000_000,
        # One slate of a million empty items, and a thousand of a few thousand.
        b"\x0a\x80\x89\x7a" + b"\x4a\x00" * 1_000_000,
        (b"\x0a\xa0\x1f" + b"\x4a\x00" * 2_000) * 1_000,
    ],
)
def test_millions_of_tiny_parts_are_not(message: bytes) -> None:
    assert too_dense(message)


def test_the_bound_is_exact() -> None:
    padding = b"\x12\x80\x80\x04" + bytes(2**16)
    assert not too_dense(padding + b"\x0a\x00" * (MOST_PARTS - 1))
    assert too_dense(padding + b"\x0a\x00" * MOST_PARTS)


def test_noise_comes_to_an_end() -> None:
    random_ = random.Random(7)
    for _ in range(50):
        too_dense(random_.randbytes(70_000))
