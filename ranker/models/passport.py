"""What a model says of itself: where it came from, what it reads, what it measured.

A passport is JSON with sorted keys and nothing of the moment it was written, so that the same data and settings give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

Source = Literal["train", "import"]

FORMAT = 1
"""Version of the passport's form; a reader refuses a later one."""

VERSION_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,255}")
"""What a model's name may look like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A measured figure."""

    name: str
    """As in `test.model.ndcg_at_10`: slice, ranker, figure."""

    value: float
    """Its value."""

    low: float | None = None
    """Lower end of its 95 % bootstrap interval over users; None: none was made."""

    high: float | None = None
    """Upper end."""

    def to_document(self) -> dict[str, str | float]:
        """Without the ends of an interval that was not made."""
        if self.low is None or self.high is None:
            return {"name": self.name, "value": self.value}
        return {"name": self.name, "value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureGain:
    """What a feature did for a model."""

    feature: str
    """Its name."""

    gain_share: float
    """Its share of the total gain of all splits, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A span of the data, by the time slates were shown."""

    name: str
    """`train`: learned from. `validation`: stopped the training. `test`: the reported figures."""

    start_time: datetime
    """When its first slate was shown."""

    end_time: datetime
    """Just after its last slate was shown."""

    slate_count: int
    row_count: int
    user_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Passport:
    """What a model says of itself."""

    model_version: str
    """Its name, unique in the deployment."""

    source: Source
    """`train` or `import`."""

    feature_names: tuple[str, ...]
    """The feature of each column of the forest, in order."""

    schema_hash: str
    """The feature schema the names are of."""

    tree_count: int
    """Trees in the forest."""

    data_start_time: datetime | None = None
    """First moment of what it learned from (train and validation slices); None for imports."""

    data_end_time: datetime | None = None
    """Last moment of it, not included."""

    slate_count: int = 0
    """Slates it learned from: those of the train slice."""

    row_count: int = 0
    """Impressions of those."""

    slices: tuple[Slice, ...] = ()
    """The spans of the data."""

    metrics: tuple[Metric, ...] = ()
    """What it measured, itself and beside the baselines that need no other model."""

    top_features: tuple[FeatureGain, ...] = ()
    """The most important features, largest first."""

    constant_features: tuple[str, ...] | None = None
    """Features of which it has seen one value only, or none; None: not known, as for imports."""

    label_gain: tuple[float, ...] = ()
    """Gain of each grade it was trained with; empty for imports."""

    parameters: tuple[tuple[str, str | int | float | bool], ...] = ()
    """What it was trained with, by name."""

    library_versions: tuple[tuple[str, str], ...] = ()
    """Versions of the libraries that made it."""

    parent_version: str = ""
    """The model whose forest it continues; empty: none."""

    def to_json(self) -> bytes:
        """The passport as a file."""
        content: dict[str, Any] = {"format": FORMAT, **asdict(self)}
        content["parameters"] = dict(self.parameters)
        content["library_versions"] = dict(self.library_versions)
        return (json.dumps(content, default=_encoded, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes) -> Passport:
        """Reads the file.

        Raises:
            ValueError: it is no passport; the sentence says why.
        """
        try:
            content = json.loads(text)
            if content.pop("format") != FORMAT:
                raise ValueError(f"the passport's form is not {FORMAT}: it was written by another release")
            constant = content.get("constant_features")
            return cls(
                **{
                    **content,
                    "constant_features": None if constant is None else tuple(constant),
                    "feature_names": tuple(content["feature_names"]),
                    "data_start_time": _time(content["data_start_time"]),
                    "data_end_time": _time(content["data_end_time"]),
                    "slices": tuple(_slice(one) for one in content["slices"]),
                    "metrics": tuple(Metric(**one) for one in content["metrics"]),
                    "top_features": tuple(FeatureGain(**one) for one in content["top_features"]),
                    "label_gain": tuple(content["label_gain"]),
                    "parameters": tuple(sorted(content["parameters"].items())),
                    "library_versions": tuple(sorted(content["library_versions"].items())),
                }
            )
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"the passport cannot be read ({type(error).__name__}: {error})") from error

    def named(self, moment: datetime, forest: bytes) -> Passport:
        """The passport under a name made of a moment and the content, as in `m20261120T141500-3f2a9c`."""
        digest = hashlib.sha256(replace(self, model_version="").to_json() + forest).hexdigest()
        return replace(self, model_version=f"m{moment.astimezone(UTC):%Y%m%dT%H%M%S}-{digest[:6]}")


def sorted_items(values: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The mapping in the form the passport keeps it."""
    return tuple(sorted(values.items()))


def top_features(feature_names: Sequence[str], gains: Sequence[float], count: int = 10) -> tuple[FeatureGain, ...]:
    """The features with the most gain, largest first (equal ones by name), as shares of the total; those without any left out."""
    total = sum(gains)
    if total <= 0:
        return ()
    order = sorted(range(len(gains)), key=lambda column: (-gains[column], feature_names[column]))[:count]
    return tuple(FeatureGain(feature=feature_names[column], gain_share=gains[column] / total) for column in order if gains[column] > 0)


def _encoded(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds")
    raise TypeError(f"{type(value).__name__} has no place in a passport")


def _slice(content: dict[str, Any]) -> Slice:
    return Slice(**{**content, "start_time": _moment(content["start_time"]), "end_time": _moment(content["end_time"])})


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _time(text: str | None) -> datetime | None:
    return None if text is None else _moment(text)
