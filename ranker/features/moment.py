"""When and where the slate is shown; the same for all candidates of a request."""

from __future__ import annotations

import math
from typing import Final

from ranker.features.attributes import code
from ranker.features.columns import Floats
from ranker.features.feature import Feature

FAMILY: Final = "moment"

_DEVICES: Final = ("mobile", "desktop", "tablet")
_SURFACES: Final = ("home", "search", "email")
_DAY_SECONDS: Final = 86_400.0
_EPOCH_WEEKDAY: Final = 3
"""1970-01-01 was a Thursday."""

FEATURES: Final = (
    Feature(name="hour", family=FAMILY, default=float("nan"), meaning="time of day (UTC) in hours, 0 to under 24"),
    Feature(name="weekday", family=FAMILY, default=float("nan"), meaning="day of the week (UTC), 0 is Monday"),
    *(Feature(name=f"device_{name}", family=FAMILY, default=0.0, meaning=f"1 if the context's device is {name}") for name in _DEVICES),
    *(Feature(name=f"surface_{name}", family=FAMILY, default=0.0, meaning=f"1 if the surface is {name}") for name in _SURFACES),
    Feature(name="device_code", family=FAMILY, default=float("nan"), meaning="a stable number for the context's device, 0 to 1008"),
    Feature(name="surface_code", family=FAMILY, default=float("nan"), meaning="a stable number for the surface, 0 to 1008"),
)


def fill(out: Floats, *, moment_seconds: float, device: str, surface: str) -> None:
    """Writes (10, n_candidates) from Unix seconds and the words of the request, of whatever case."""
    day, seconds = divmod(moment_seconds, _DAY_SECONDS)
    device, surface = device.lower(), surface.lower()
    values = [seconds / 3600.0, float((math.floor(day) + _EPOCH_WEEKDAY) % 7)]
    values += [float(device == name) for name in _DEVICES]
    values += [float(surface == name) for name in _SURFACES]
    values += [code(device), code(surface)]
    for row, value in zip(out, values, strict=True):
        row.fill(value)
