"""Bundles: the same content gives the same bytes, and whatever does not agree is said."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import lightgbm
import numpy as np
import pytest

from ranker.models.bundle import CANNED, FOREST, MANIFEST, PASSPORT, BadBundle, Bundle
from ranker.models.passport import FeatureGain, Metric, Passport, Slice, top_features

MOMENT = datetime(2026, 11, 20, 14, 15, tzinfo=UTC)
NAMES = ("a", "b", "c")


def forest(rounds: int = 4, seed: int = 0) -> bytes:
    random = np.random.default_rng(seed)
    matrix = random.random((300, 3))
    matrix[random.random(matrix.shape) < 0.2] = np.nan
    dataset = lightgbm.Dataset(matrix, label=random.integers(0, 5, 300), group=[20] * 15)
    parameters = {"objective": "lambdarank", "num_leaves": 5, "num_threads": 1, "verbosity": -1}
    return lightgbm.train(parameters, dataset, rounds).model_to_string().encode()


FOREST_TEXT = forest()
CANNED_ROWS = np.vstack([np.random.default_rng(5).random((6, 3)), np.full((1, 3), np.nan)])
WRITTEN = Passport(
    model_version="m1",
    source="train",
    feature_names=NAMES,
    schema_hash="hash",
    tree_count=4,
    data_start_time=MOMENT,
    data_end_time=MOMENT,
    slate_count=3,
    row_count=30,
    slices=(Slice(name="test", start_time=MOMENT, end_time=MOMENT, slate_count=1, row_count=10, user_count=1),),
    metrics=(Metric(name="test.model.ndcg_at_10", value=0.1 + 0.2, low=0.1, high=0.5), Metric(name="x", value=1.0)),
    top_features=(FeatureGain(feature="b", gain_share=0.5),),
    label_gain=(0.0, 1.0),
    parameters=(("seed", 1), ("objective", "lambdarank")),
    library_versions=(("lightgbm", "4.7.0"),),
)


@pytest.fixture
def bundle() -> Bundle:
    return Bundle.make(WRITTEN, FOREST_TEXT, CANNED_ROWS)


def test_packing_and_unpacking_change_nothing(bundle: Bundle) -> None:
    unpacked = Bundle.unpack(bundle.pack())
    assert unpacked == bundle
    booster = unpacked.verify()
    np.testing.assert_array_equal(booster.predict(unpacked.canned.matrix), unpacked.canned.scores)
    np.testing.assert_array_equal(unpacked.canned.matrix, CANNED_ROWS)
    assert unpacked.model_version == "m1"


def test_the_same_content_gives_the_same_bytes(bundle: Bundle) -> None:
    again = Bundle.make(WRITTEN, FOREST_TEXT, CANNED_ROWS.copy())
    assert again.pack() == bundle.pack()
    with zipfile.ZipFile(io.BytesIO(bundle.pack())) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    with zipfile.ZipFile(io.BytesIO(bundle.files[CANNED])) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_passport_reads_back_as_it_was_written() -> None:
    expected = replace(WRITTEN, parameters=tuple(sorted(WRITTEN.parameters)))
    assert Passport.from_json(WRITTEN.to_json()) == expected
    imported = replace(expected, source="import", data_start_time=None, data_end_time=None, slices=(), metrics=())
    assert Passport.from_json(imported.to_json()) == imported


def test_a_name_says_when_and_what() -> None:
    named = WRITTEN.named(MOMENT, FOREST_TEXT)
    assert named.model_version.startswith("m20261120T141500-")
    assert named == replace(WRITTEN, model_version="other").named(MOMENT, FOREST_TEXT)
    assert named.model_version != WRITTEN.named(MOMENT, FOREST_TEXT + b"\n").model_version
    assert named.model_version != replace(WRITTEN, schema_hash="h").named(MOMENT, FOREST_TEXT).model_version


def test_the_manifest_has_the_hash_of_every_file(bundle: Bundle) -> None:
    assert json.loads(bundle.files[MANIFEST])["sha256"] == bundle.sha256
    assert set(bundle.sha256) == {FOREST, PASSPORT, CANNED}


def signed(bundle: Bundle, **changed: bytes) -> Bundle:
    """With other files and the manifest that belongs to them."""
    files = {
        **bundle.files,
        **{{"forest": FOREST, "passport": PASSPORT, "canned": CANNED}[name]: content for name, content in changed.items()},
    }
    return Bundle({**files, MANIFEST: json.dumps({"sha256": Bundle(files).sha256}).encode()})


def canned(matrix: np.ndarray, scores: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez(content, matrix=matrix, scores=scores)
    return content.getvalue()


def objects() -> bytes:
    content = io.BytesIO()
    np.savez(content, matrix=np.array([{"a": 1}], dtype=object), scores=np.zeros(1))
    return content.getvalue()


@pytest.mark.parametrize("name", [FOREST, PASSPORT, CANNED])
def test_a_changed_file_is_noticed(bundle: Bundle, name: str) -> None:
    with pytest.raises(BadBundle, match=f"{name} is not what the manifest says"):
        Bundle({**bundle.files, name: bundle.files[name] + b" "}).verify()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: Bundle({name: text for name, text in b.files.items() if name != PASSPORT}), "lacks passport.json"),
        (lambda b: Bundle({**b.files, MANIFEST: b"[]"}), "manifest.json cannot be read"),
        (lambda b: signed(b, passport=b"{}"), "passport cannot be read"),
        (lambda b: signed(b, passport=b"no json"), "passport cannot be read"),
        (lambda b: signed(b, passport=WRITTEN.to_json().replace(b'"format": 1', b'"format": 2')), "another release"),
        (lambda b: signed(b, passport=replace(WRITTEN, feature_names=("a", "b")).to_json()), "3 features and the passport names 2"),
        (lambda b: signed(b, passport=replace(WRITTEN, feature_names=("a", "b", "a")).to_json()), "names a feature twice"),
        (lambda b: signed(b, passport=replace(WRITTEN, tree_count=5).to_json()), "4 trees and the passport says 5"),
        (lambda b: signed(b, forest=b"tree\nnonsense"), "LightGBM cannot read the forest"),
        (lambda b: signed(b, forest=forest(seed=1)), "canned scores differ from those recorded"),
        (lambda b: signed(b, canned=canned(CANNED_ROWS, np.nextafter(b.canned.scores, 1))), "canned scores differ from those recorded"),
        (lambda b: signed(b, canned=canned(CANNED_ROWS[:, :2], b.canned.scores)), r"the canned rows are \(7, 2\)"),
        (lambda b: signed(b, canned=canned(CANNED_ROWS, b.canned.scores[:3])), r"the scores \(3,\)"),
        (lambda b: signed(b, canned=canned(CANNED_ROWS[:0], b.canned.scores[:0])), r"the canned rows are \(0, 3\)"),
        (lambda b: signed(b, canned=canned(CANNED_ROWS.astype(np.float32), b.canned.scores)), "not of float64"),
        (lambda b: signed(b, canned=canned(CANNED_ROWS, np.full(7, np.nan))), "not finite"),
        (lambda b: signed(b, canned=objects()), "canned.npz cannot be read"),
        (lambda b: signed(b, canned=b"nothing"), "canned.npz cannot be read"),
    ],
)
def test_what_does_not_agree_is_said(bundle: Bundle, spoil: Callable[[Bundle], Bundle], message: str) -> None:
    with pytest.raises(BadBundle, match=message):
        spoil(bundle).verify()


def zipped(**files: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


@pytest.mark.parametrize(
    "packed", [b"", b"PK", zipped(a=b""), zipped(**{FOREST: b"", "../evil": b""})], ids=["nothing", "no-zip", "no-forest", "a-way-out"]
)
def test_bytes_that_are_no_bundle_are_refused(packed: bytes) -> None:
    with pytest.raises(BadBundle):
        Bundle.unpack(packed)


def test_damage_inside_is_refused(bundle: Bundle) -> None:
    packed = bytearray(bundle.pack())
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(BadBundle):
        Bundle.unpack(bytes(packed)).verify()


def test_top_features_are_shares_largest_first() -> None:
    assert top_features(NAMES, [1.0, 3.0, 0.0]) == (FeatureGain(feature="b", gain_share=0.75), FeatureGain(feature="a", gain_share=0.25))
    assert top_features(NAMES, [1.0, 3.0, 2.0], count=1) == (FeatureGain(feature="b", gain_share=0.5),)
    assert top_features(NAMES, [0.0, 0.0, 0.0]) == ()
