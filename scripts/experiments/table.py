"""What a simulation found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import rich.table


@dataclass(frozen=True, slots=True)
class Finding:
    """A table of figures, with what they should be."""

    key: str
    title: str
    should: str
    """What a reader holds the figures against."""
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    failures: Sequence[str]
    """Rows that are not as they should be, in words; empty: all are."""

    def markdown(self) -> str:
        """For a page of the documentation."""
        lines = [f"| {' | '.join(self.columns)} |", f"|{' --- |' * len(self.columns)}", *(f"| {' | '.join(row)} |" for row in self.rows)]
        return "\n".join([f"**{self.title}.** {self.should}", "", *lines])

    def shown(self) -> rich.table.Table:
        """For a terminal."""
        table = rich.table.Table(*self.columns, title=self.title, caption=self.should, title_justify="left", caption_justify="left")
        for row in self.rows:
            table.add_row(*row)
        return table


def percent(share: float) -> str:
    """As in `4.9 %`."""
    return f"{100 * share:.1f} %"


def rate(share: float) -> str:
    """A base rate as in `0.2 %`; nothing where there is none."""
    return "–" if share == 1.0 else f"{100 * share:g} %"
