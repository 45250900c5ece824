"""From the protobuf request to columns: the one place that walks the candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Final

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from ranker.features.columns import Floats, RequestColumns
from ranker.features.scanning import Scanned
from ranker.features.schema import FeatureSchema
from rankloop.v1 import ranking_pb2

_MATRIX_TYPE: Final = np.dtype("<f8")
_NANOS: Final = 1e-9


def seconds_of(time: Timestamp) -> float:
    """A moment in Unix seconds."""
    return float(time.seconds) + float(time.nanos) * _NANOS


def decode(
    request: ranking_pb2.RankRequest, schema: FeatureSchema, moment_seconds: float, scanned: Scanned | None = None
) -> RequestColumns:
    """The columns of a request that `ranker.validation.check` has passed; what of them was `scanned` already is not looked at again.

    Of one feature's values, that of the matrix wins over the candidate's own map, which wins over the request's `context_numbers`; NaN in
    the matrix says nothing. Names the schema does not know are counted and passed over.
    """
    candidates = request.candidates
    count = len(candidates)
    if scanned is not None:
        given, unknown = _given(request, schema, count, scanned.own)
        unknown_names = len(unknown) + scanned.unknown_names
        if unknown and scanned.unknown_names:  # a name may be in both
            unknown_names = len(unknown | _own(candidates, schema, count)[1])
        return RequestColumns(
            item_ids=scanned.item_ids,
            item_types=scanned.item_types,
            priors=scanned.priors,
            given=given,
            tags=scanned.tags,
            tiers=scanned.tiers,
            create_seconds=scanned.create_seconds,
            embeddings=scanned.embeddings,
            surface=request.surface,
            device=request.context.get("device", ""),
            moment_seconds=moment_seconds,
            unknown_names=unknown_names,
        )
    own, unknown_of_own = _own(request.candidates, schema, count)
    given, unknown = _given(request, schema, count, own)
    unknown |= unknown_of_own
    nan = float("nan")
    return RequestColumns(
        item_ids=[candidate.item_id for candidate in candidates],
        item_types=[candidate.item_type for candidate in candidates],
        priors=np.array([candidate.prior_score if candidate.HasField("prior_score") else nan for candidate in candidates]),
        given=given,
        tags=[candidate.tags for candidate in candidates],
        tiers=[candidate.attributes.get("tier", "") for candidate in candidates],
        create_seconds=np.array(
            [seconds_of(candidate.create_time) if candidate.HasField("create_time") else nan for candidate in candidates]
        ),
        embeddings=_embeddings(candidates),
        surface=request.surface,
        device=request.context.get("device", ""),
        moment_seconds=moment_seconds,
        unknown_names=len(unknown),
    )


def _given(
    request: ranking_pb2.RankRequest, schema: FeatureSchema, count: int, own: Mapping[str, Floats]
) -> tuple[dict[str, Floats], set[str]]:
    """Values by name, those of the candidates' own maps included, and names that the schema does not know, those maps' left out."""
    given: dict[str, Floats] = {}
    unknown: set[str] = set()
    for name, value in request.context_numbers.items():
        if name in schema.index:
            given[name] = np.full(count, value)
        else:
            unknown.add(name)
    for name, column in own.items():
        under = given.get(name)
        given[name] = column if under is None else np.where(np.isnan(column), under, column)
    matrix = request.feature_matrix
    if matrix.names:
        block = np.frombuffer(matrix.values, dtype=_MATRIX_TYPE).reshape(count, len(matrix.names))
        for place, name in enumerate(matrix.names):
            if name not in schema.index:
                unknown.add(name)
                continue
            column, under = block[:, place], given.get(name)
            given[name] = column if under is None else np.where(np.isnan(column), under, column)
    return given, unknown


def _own(candidates: Sequence[ranking_pb2.Candidate], schema: FeatureSchema, count: int) -> tuple[dict[str, Floats], set[str]]:
    names: list[str] = []
    values: list[float] = []
    owners: list[int] = []
    for place, candidate in enumerate(candidates):
        features = candidate.features
        if features:
            names.extend(features)
            values.extend(features.values())
            owners.extend(repeat(place, len(features)))
    unknown: set[str] = set()
    return (_own_columns(names, values, owners, schema, count, unknown) if names else {}), unknown


def _own_columns(
    names: Sequence[str], values: Sequence[float], owners: Sequence[int], schema: FeatureSchema, count: int, unknown: set[str]
) -> dict[str, Floats]:
    """Columns out of the candidates' maps, flattened one after the other."""
    column_of = schema.index
    distinct = dict.fromkeys(names)
    known = [name for name in distinct if name in column_of]
    unknown.update(name for name in distinct if name not in column_of)
    place_of = {name: place for place, name in enumerate(known)}
    # One column more than there are: where values of unknown names go.
    block = np.full((len(known) + 1, count), np.nan)
    place = place_of.get
    block[[place(name, -1) for name in names], owners] = values
    return {name: block[row] for row, name in enumerate(known)}


def _embeddings(candidates: Sequence[ranking_pb2.Candidate]) -> NDArray[np.float32] | None:
    size = next((len(candidate.embedding) for candidate in candidates if candidate.embedding), 0)
    if not size:
        return None
    missing = [float("nan")] * size
    return np.array([candidate.embedding or missing for candidate in candidates], dtype=np.float32)
