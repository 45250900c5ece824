"""Candidates read off the wire, where there is a compiled reader: checked and decoded in one pass, without a Python object for each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ranker.compiled import compiled_module
from ranker.features.columns import Floats
from ranker.features.schema import FeatureSchema
from rankloop.v1 import ranking_pb2

TAGS_PER_CANDIDATE: Final = 8
"""Room for so many at first; requests with more are read twice."""

MOST_TAGS: Final = 64
MAX_READERS: Final = 16
KERNEL: Final = "ranker.features.scan_kernel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """Candidates that are as they must be, one entry each. As the fields of RequestColumns."""

    item_ids: Sequence[str]
    item_types: Sequence[str]
    priors: Floats
    own: Mapping[str, Floats]
    """Values of the candidates' own maps, by feature name; NaN where missing."""
    tags: Sequence[Sequence[str]]
    tiers: Sequence[str]
    create_seconds: Floats
    embeddings: NDArray[np.float32] | None
    unknown_names: int
    """Different names that the schema does not know."""


class CandidateReader:
    """Reads candidates of requests with a schema's features."""

    def __init__(self, schema: FeatureSchema, *, max_candidates: int) -> None:
        """Requests with more than `max_candidates` are not read. Raises NoCompiler."""
        self._max_candidates = max_candidates
        self._kernel: Any = compiled_module("ranker.features.scan_kernel")
        self._schema = schema
        encoded = [name.encode() for name in schema.names]
        self._names = np.frombuffer(b"".join(encoded), dtype=np.uint8).copy()
        self._name_ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._slots = np.full(2 ** (4 * len(encoded)).bit_length(), -1, dtype=np.int64)
        for column, name in enumerate(encoded):
            slot = _hash(name) % len(self._slots)
            while self._slots[slot] >= 0:
                slot = (slot + 1) % len(self._slots)
            self._slots[slot] = column

    def read(self, request: ranking_pb2.RankRequest, *, embedding_size: int | None) -> Scanned | None:
        """The candidates, if nothing is wrong with them; None: look at them in Python, which says what is.

        `embedding_size` is the size that embeddings of the deployment have; None: they must only agree with each other.
        """
        count = len(request.candidates)
        if not 1 <= count <= self._max_candidates:
            return None
        wire = request.SerializeToString()
        room = TAGS_PER_CANDIDATE * count
        while True:
            spans = np.zeros((count, self._kernel.SPAN_COLUMNS), dtype=np.int64)
            tags = np.empty((room, 2), dtype=np.int64)
            priors, created = np.full(count, np.nan), np.full(count, np.nan)
            values = np.full((len(self._schema), count), np.nan)
            touched = np.zeros(len(self._schema), dtype=np.bool_)
            unknown = np.zeros(self._kernel.UNKNOWN_SLOTS, dtype=np.uint64)
            data = np.frombuffer(wire, dtype=np.uint8)
            found = self._kernel.scan(
                data, self._slots, self._names, self._name_ends, spans, tags, priors, created, values, touched, unknown
            )
            if found != self._kernel.NO_ROOM or room >= MOST_TAGS * count:
                break
            room = MOST_TAGS * count
        if found < 0:
            return None
        starts_and_ends = spans.T.tolist()
        item_ids = _texts(wire, starts_and_ends[0], starts_and_ends[1])
        if len(set(item_ids)) != count:
            return None
        embeddings: NDArray[np.float32] | None = None
        if spans[:, self._kernel.EMBEDDING_END].any():
            embeddings = _embeddings(wire, starts_and_ends[6], starts_and_ends[7], embedding_size)
            if embeddings is None:
                return None
        names = self._schema.names
        return Scanned(
            item_ids=item_ids,
            item_types=_texts(wire, starts_and_ends[2], starts_and_ends[3]),
            priors=priors,
            own={names[column]: values[column] for column in np.flatnonzero(touched).tolist()},
            tags=_tags(wire, tags, starts_and_ends[8]),
            tiers=_texts(wire, starts_and_ends[4], starts_and_ends[5]),
            create_seconds=created,
            embeddings=embeddings,
            unknown_names=found,
        )


class CandidateReaders:
    """Readers by schema: models of several schemas may serve side by side."""

    def __init__(self, *, max_candidates: int) -> None:
        """As CandidateReader. Compiles. Raises NoCompiler."""
        self._max_candidates = max_candidates
        self._readers: OrderedDict[str, CandidateReader] = OrderedDict()
        compiled_module(KERNEL)

    def of(self, schema: FeatureSchema) -> CandidateReader:
        """The reader for a schema."""
        reader = self._readers.get(schema.hash)
        if reader is None:
            reader = self._readers[schema.hash] = CandidateReader(schema, max_candidates=self._max_candidates)
            while len(self._readers) > MAX_READERS:
                self._readers.popitem(last=False)
        return reader


def _texts(wire: bytes, starts: list[int], ends: list[int]) -> list[str]:
    return [wire[start:end].decode() if end else "" for start, end in zip(starts, ends, strict=True)]


def _tags(wire: bytes, spans: NDArray[np.int64], ends: list[int]) -> list[list[str]]:
    total = ends[-1] if ends else 0
    if not total:
        return [[]] * len(ends)
    texts = [wire[start:end].decode() for start, end in spans[:total].tolist()]
    return [texts[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _embeddings(wire: bytes, starts: list[int], ends: list[int], size: int | None) -> NDArray[np.float32] | None:
    """(n, size) float32, rows of NaN where there is none; None: sizes differ, or a number is not finite."""
    sizes = {end - start for start, end in zip(starts, ends, strict=True) if end}
    if len(sizes) != 1 or (size is not None and sizes != {4 * size}):
        return None
    length = sizes.pop()
    missing = np.full(length // 4, np.nan, dtype="<f4").tobytes()
    rows = b"".join(wire[start:end] if end else missing for start, end in zip(starts, ends, strict=True))
    table = np.frombuffer(rows, dtype="<f4").reshape(len(starts), length // 4).astype(np.float32)
    present = np.array(ends, dtype=np.bool_)
    return table if np.isfinite(table[present]).all() else None


def _hash(data: bytes) -> int:
    """FNV-1a, as the compiled reader has it."""
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x100000001B3 % 2**64
    return found
