"""The files of one version of a ranker.

    forest.txt      the trees, in LightGBM's text format
    passport.json   what the model says of itself
    canned.npz      a slate and the scores LightGBM gave for it: whoever loads the model must get the same, bit for bit
    manifest.json   sha256 of each of the three

Packed, they are a zip file whose bytes depend on the content only. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import lightgbm
import numpy as np
from numpy.typing import NDArray

from ranker.models.passport import Passport
from runtime.errors import FailedPrecondition

FOREST, PASSPORT, CANNED, MANIFEST = "forest.txt", "passport.json", "canned.npz", "manifest.json"
HASHED_FILES = (CANNED, FOREST, PASSPORT)
FILES = (*HASHED_FILES, MANIFEST)

MAX_UNPACKED_BYTES = 512 * 2**20
"""Larger bundles are refused before they are unpacked."""

MAX_CANNED_ROWS = 64
"""Rows of a canned slate."""


class BadBundle(FailedPrecondition):
    """The files of a model do not agree with each other, or are no model. `reason`: BAD_BUNDLE, CANNED_SCORES_DIFFER or NOT_FINITE."""

    reason = "BAD_BUNDLE"


@dataclass(frozen=True, slots=True, eq=False)
class CannedSlate:
    """Rows and the scores that belong to them."""

    matrix: NDArray[np.float64]
    """(rows, features) float64, columns as the passport's feature_names; NaN is missing."""

    scores: NDArray[np.float64]
    """(rows,) float64: `Booster.predict(matrix, raw_score=True, num_threads=1)` of the forest as stored."""


@dataclass(frozen=True)
class Bundle:
    """One version of a ranker. Two bundles are equal when their files are."""

    files: Mapping[str, bytes]
    """Content by file name."""

    @classmethod
    def make(cls, passport: Passport, forest: bytes, canned_matrix: NDArray[np.float64]) -> Bundle:
        """A bundle of a forest, scored once on `canned_matrix` ((rows, features) float64) by the forest as it will be read back.

        Raises:
            BadBundle: LightGBM cannot read the forest, or it does not fit the matrix.
        """
        matrix = np.ascontiguousarray(canned_matrix, dtype=np.float64)
        scores = raw_scores(read_forest(forest), matrix)
        contents = {FOREST: forest, PASSPORT: passport.to_json(), CANNED: _npz({"matrix": matrix, "scores": scores})}
        manifest = {"sha256": {name: hashlib.sha256(contents[name]).hexdigest() for name in HASHED_FILES}}
        return cls({**contents, MANIFEST: (json.dumps(manifest, sort_keys=True, indent=1) + "\n").encode()})

    @classmethod
    def unpack(cls, packed: bytes) -> Bundle:
        """The files in `packed`; nothing of them is checked but their names and total size, see `verify`.

        Raises:
            BadBundle: these are not the bytes of a bundle.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(packed)) as archive:
                entries = archive.infolist()
                if sorted(entry.filename for entry in entries) != sorted(FILES):
                    raise BadBundle(f"the bundle holds {sorted(entry.filename for entry in entries)}; expected {sorted(FILES)}")
                if sum(entry.file_size for entry in entries) > MAX_UNPACKED_BYTES:
                    raise BadBundle(f"the bundle unpacks to more than {MAX_UNPACKED_BYTES} bytes")
                return cls({entry.filename: archive.read(entry) for entry in entries})
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
            if isinstance(error, BadBundle):
                raise
            raise BadBundle(f"the bundle cannot be unpacked: {error}") from error

    def pack(self) -> bytes:
        """All files as one: the same content gives the same bytes."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name in sorted(self.files):
                # A ZipInfo made by hand has a fixed date; writestr alone would take the present.
                entry = zipfile.ZipInfo(name)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.create_system = 3
                archive.writestr(entry, self.files[name], compresslevel=6)
        return packed.getvalue()

    @property
    def forest(self) -> bytes:
        """The trees, in LightGBM's text format."""
        return self.files[FOREST]

    @cached_property
    def passport(self) -> Passport:
        """What the model says of itself. Raises BadBundle if that cannot be read."""
        try:
            return Passport.from_json(self.files[PASSPORT])
        except ValueError as error:
            raise BadBundle(str(error)) from error

    @cached_property
    def canned(self) -> CannedSlate:
        """The canned slate. Raises BadBundle if it cannot be read."""
        try:
            with np.load(io.BytesIO(self.files[CANNED]), allow_pickle=False) as arrays:
                return CannedSlate(matrix=arrays["matrix"], scores=arrays["scores"])
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise BadBundle(f"{CANNED} cannot be read: {error}") from error

    @cached_property
    def sha256(self) -> dict[str, str]:
        """sha256 of each hashed file as it is, in hexadecimal, by name."""
        return {name: hashlib.sha256(self.files[name]).hexdigest() for name in HASHED_FILES}

    @property
    def model_version(self) -> str:
        """The model's name."""
        return self.passport.model_version

    def verify(self) -> lightgbm.Booster:
        """Checks that the files agree with each other, and returns the booster, read and tried.

        Raises:
            BadBundle: a hash, a file, the number of features or trees, or a canned score does not agree; the sentence says which.
        """
        self.verify_hashes()
        passport, canned = self.passport, self.canned
        booster = read_forest(self.forest)
        features = len(passport.feature_names)
        if len(set(passport.feature_names)) != features:
            raise BadBundle("the passport names a feature twice")
        if booster.num_feature() != features:
            raise BadBundle(f"the forest has {booster.num_feature()} features and the passport names {features}")
        if booster.num_trees() != passport.tree_count:
            raise BadBundle(f"the forest has {booster.num_trees()} trees and the passport says {passport.tree_count}")
        if canned.matrix.dtype != np.float64 or canned.scores.dtype != np.float64:
            raise BadBundle("the canned slate is not of float64")
        rows = canned.scores.size
        if not rows or canned.scores.shape != (rows,) or canned.matrix.shape != (rows, features):
            raise BadBundle(f"the canned rows are {canned.matrix.shape}, the scores {canned.scores.shape}; not (n, {features}) and (n,)")
        if not np.isfinite(canned.scores).all():
            raise BadBundle("a canned score is not finite", reason="NOT_FINITE")
        scores = raw_scores(booster, canned.matrix)
        differing = int((scores != canned.scores).sum())
        if differing:
            worst = float(np.abs(scores - canned.scores).max())
            raise BadBundle(
                f"{differing} of {scores.size} canned scores differ from those recorded, by up to {worst:.3g}",
                reason="CANNED_SCORES_DIFFER",
            )
        return booster

    def verify_hashes(self) -> None:
        """Checks that every file is there and is what the manifest says. Raises BadBundle."""
        missing = sorted(set(FILES) - set(self.files))
        if missing:
            raise BadBundle(f"the bundle lacks {', '.join(missing)}")
        try:
            stated = json.loads(self.files[MANIFEST])["sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadBundle(f"{MANIFEST} cannot be read: {error}") from error
        for name, digest in self.sha256.items():
            if stated.get(name) != digest:
                raise BadBundle(f"{name} is not what the manifest says: sha256 {digest}, stated {stated.get(name)}")


def read_forest(forest: bytes) -> lightgbm.Booster:
    """The booster of a forest in LightGBM's text format. Of a stranger's forest, take what `forest.clean_forest` gives.

    Raises:
        BadBundle: LightGBM cannot read it.
    """
    try:
        return lightgbm.Booster(model_str=forest.decode())
    except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
        raise BadBundle(f"LightGBM cannot read the forest: {error}") from error


def raw_scores(booster: lightgbm.Booster, matrix: NDArray[np.float64], *, num_threads: int = 1) -> NDArray[np.float64]:
    """What the forest says of each row of `matrix` ((rows, features) float64): the sum of its leaves in tree order, (rows,) float64.

    Raises:
        BadBundle: the matrix has not as many columns as the forest, or the forest gives several values per row.
    """
    try:
        scores = np.asarray(booster.predict(matrix, raw_score=True, num_threads=num_threads), dtype=np.float64)
    except lightgbm.basic.LightGBMError as error:
        raise BadBundle(f"the forest cannot score {matrix.shape[1]} columns: {error}") from error
    if scores.shape != matrix.shape[:1]:
        raise BadBundle(f"the forest gives {scores.shape[1:]} values per row; a ranker gives one")
    return scores


def _npz(arrays: Mapping[str, NDArray[np.float64]]) -> bytes:
    """The arrays as .npz, without pickle and without the present time."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in sorted(arrays.items()):
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.create_system = 3
            archive.writestr(entry, member.getvalue())
    return content.getvalue()
