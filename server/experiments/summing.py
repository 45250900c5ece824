"""From rows of users to what a readout is made of, block by block. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.timestamps import EPOCH
from server.experiments.block import Block
from server.experiments.observed import Group, Observed
from server.experiments.rows import DAY, Outline, key_of
from server.inference.moments import Floats, Moments
from server.inference.winsorising import Sketch, winsorised

Mask = NDArray[np.bool_]


class Counted:
    """Who counts: everybody but testers, those who saw several variants, and who saw one that the experiment does not have."""

    def __init__(self, tester_ids: Iterable[str]) -> None:
        self._testers = np.array([key_of(user_id) for user_id in tester_ids], dtype=np.uint64)

    def testers(self, block: Block) -> Mask:
        """(n,) whether each user is one."""
        return np.isin(block.users, self._testers)

    def of(self, block: Block) -> Mask:
        """(n,) whether each user counts."""
        return ~self.testers(block) & ~block.mixed & (block.groups >= 0)


class Caps:
    """Finds the caps of winsorised metrics in a first pass."""

    def __init__(self, outline: Outline, counted: Counted) -> None:
        self._outline = outline
        self._counted = counted
        self._sketches = {one.metric.name: Sketch() for one in outline.metrics if one.quantile < 1.0}

    @property
    def wanted(self) -> bool:
        """Whether there is any to find."""
        return bool(self._sketches)

    def add(self, block: Block) -> None:
        """Takes in users, each once."""
        rows = self._counted.of(block)
        for name, columns in _columns(self._outline).items():
            if name in self._sketches:
                values = block.values[rows, columns.start]
                self._sketches[name].add(values[~np.isnan(values)])

    def found(self) -> dict[str, float]:
        """By metric."""
        quantiles = {one.metric.name: one.quantile for one in self._outline.metrics}
        found = {name: sketch.quantile(quantiles[name]) for name, sketch in self._sketches.items()}
        return {name: cap for name, cap in found.items() if cap is not None}


class Summing:
    """Adds up users, each once: by weights and group, and the primary metric as it stood at each look."""

    def __init__(self, outline: Outline, counted: Counted, caps: Mapping[str, float], looks: Sequence[datetime]) -> None:
        """`looks` are ends of days; the moment of the readout itself is not among them."""
        self._outline = outline
        self._counted = counted
        self._caps = caps
        self._look_days = [(look - EPOCH) // DAY for look in looks]
        self._groups: dict[tuple[Any, ...], Group] = {}
        self.mixed_count = self.tester_count = 0

    def add(self, block: Block) -> None:
        """Takes in users, each once."""
        testers = self._counted.testers(block)
        self.tester_count += int(testers.sum())
        self.mixed_count += int((block.mixed & ~testers).sum())
        counted = self._counted.of(block)
        self._add_whole(block, np.flatnonzero(counted))
        self._add_looks(block, counted)

    def periods(self, count: int) -> list[list[Group]]:
        """The groups of each of so many periods."""
        return [self._of("period", place) for place in range(count)]

    def looks(self) -> list[list[Group]]:
        """The groups of each look."""
        return [self._of("look", place) for place in range(len(self._look_days))]

    def _of(self, *scope: object) -> list[Group]:
        return [self._groups.get((*scope, name)) or Group(variant_id=name) for name in self._outline.group_ids]

    def _add_whole(self, block: Block, places: NDArray[np.intp]) -> None:
        names = self._outline.group_ids
        codes = block.periods[places].astype(np.int64) * len(names) + block.groups[places]
        order = np.argsort(codes, kind="stable")
        found, firsts = np.unique(codes[order], return_index=True)
        # Without users there is no code, and still one (empty) part.
        for code, some in zip(found.tolist(), np.split(places[order], firsts[1:]), strict=False):
            period, group = divmod(code, len(names))
            metrics = {name: self._observed(name, block.values[some, columns]) for name, columns in _columns(self._outline).items()}
            self._grow(("period", period), names[group], len(some), int(block.exposures[some].sum()), metrics)

    def _add_looks(self, block: Block, counted: Mask) -> None:
        """A change counts from the first look after it on, until the user's next: two steps in the sums, however many looks there are."""
        names, look_count = self._outline.group_ids, len(self._look_days)
        kept = np.flatnonzero(counted[block.change_rows])
        rows, first = block.change_rows[kept], np.searchsorted(self._look_days, block.change_days[kept])
        end = np.full(len(kept), look_count)
        same = np.flatnonzero(rows[1:] == rows[:-1])
        end[same] = first[same + 1]
        seen = np.flatnonzero(first < end)
        if not len(seen):
            return
        primary = self._outline.metrics[0].metric.name
        values = block.change_values[kept[seen]]
        if primary in self._caps:
            values = winsorised(values, self._caps[primary])
        measured = ~np.isnan(values[:, 0])
        # Around what is usual, so that large values with a small spread lose nothing to rounding.
        usual = np.median(values[measured], axis=0) if measured.any() else np.zeros(values.shape[1])
        apart = np.where(measured[:, None], values - usual, 0.0)
        width = values.shape[1]
        columns = [np.ones(len(seen)), block.change_exposures[kept[seen]], measured, measured & (values[:, 0] != 0), *apart.T]
        columns += [apart[:, one] * apart[:, other] for one in range(width) for other in range(width)]
        cells = block.groups[rows[seen]].astype(np.int64) * (look_count + 1)
        steps = np.concatenate([cells + first[seen], cells + end[seen]])
        shape = (len(names), look_count + 1)
        sums = np.stack(
            [
                np.bincount(steps, np.concatenate([column, -column]), shape[0] * shape[1]).reshape(shape)
                for column in (np.asarray(one, dtype=np.float64) for one in columns)
            ],
            axis=-1,
        ).cumsum(axis=1)
        for group, name in enumerate(names):
            for place in range(look_count):
                users, exposures, count, converted = (round(one) for one in sums[group, place, :4].tolist())
                if users:
                    around = Moments.from_sums(
                        count, sums[group, place, 4 : 4 + width], sums[group, place, 4 + width :].reshape(width, width)
                    )
                    seen_then = Observed(Moments(count, around.mean + usual, around.products), converted) if count else None
                    self._grow(("look", place), name, users, exposures, {primary: seen_then})

    def _grow(self, scope: tuple[object, ...], name: str, users: int, exposures: int, metrics: Mapping[str, Observed | None]) -> None:
        measured = {metric: one for metric, one in metrics.items() if one is not None}
        more = Group(variant_id=name, user_count=users, exposure_count=exposures, metrics=measured)
        known = self._groups.get((*scope, name))
        self._groups[(*scope, name)] = known + more if known else more

    def _observed(self, name: str, values: Floats) -> Observed | None:
        measured = values[~np.isnan(values[:, 0])]
        if not len(measured):
            return None
        cap = self._caps.get(name)
        return Observed.of(measured if cap is None else winsorised(measured, cap))


def _columns(outline: Outline) -> dict[str, slice]:
    """Where each metric's values are."""
    ends = np.cumsum(outline.widths).tolist()
    return {one.metric.name: slice(end - width, end) for one, width, end in zip(outline.metrics, outline.widths, ends, strict=True)}
