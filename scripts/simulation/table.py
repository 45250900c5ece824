"""Figures as people read them."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from scripts.simulation.report import FIGURES, Figure, Figures

NAMES = {
    "ndcg_at_10": "true NDCG@10",
    "ctr": "CTR",
    "implementation_rate": "implementation rate",
    "diversity_score": "diversity_score",
}


def plain(figure: Figure) -> str:
    """As in `0.621 (0.612 to 0.630)`; without the interval where none was made."""
    if figure.value is None:
        return "undefined"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def relative(figure: Figure) -> str:
    """As in `+12.3 % (+10.1 to +14.6)`."""
    if figure.value is None or figure.low is None or figure.high is None:
        return "undefined"
    return f"{100 * figure.value:+.1f} % ({100 * figure.low:+.1f} to {100 * figure.high:+.1f})"


def figures_table(title: str, columns: Mapping[str, Figures], lift: Figures | None = None) -> Table:
    """A row per figure, a column per phase, and the lift at the end."""
    caption = "with 95 % bootstrap intervals over users"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left", show_lines=True)
    table.add_column("figure", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right")
    if lift is not None:
        table.add_column("lift", justify="right")
    for name in FIGURES:
        cells = [plain(figures[name]) for figures in columns.values()] + ([relative(lift[name])] if lift is not None else [])
        # The interval stands below its value, so that a table of three fits 80 columns.
        table.add_row(NAMES[name], *(cell.replace(" (", "\n(") for cell in cells))
    return table
