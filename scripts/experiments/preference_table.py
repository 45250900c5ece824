"""The preference of an experiment that interleaves, for people."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from rankloop.v1 import experiment_pb2 as pb


def preference_table(found: pb.PreferenceResult, segments: Iterable[pb.SegmentResult] = ()) -> Table:
    """Users by whose picks they clicked more, of all and by segment, and both results of the test."""
    table = Table(
        "", "users", f"prefer {found.treatment_variant_id}", f"prefer {found.control_variant_id}", "neither", box=None, pad_edge=False
    )
    table.title, table.title_justify = (
        f"preference (clicked picks of {found.treatment_variant_id} − {found.control_variant_id}, per user)",
        "left",
    )
    for name in ("difference", "always valid (look any day)", "fixed horizon (one look)", "sign test", "slates"):
        table.add_column(name)
    for label, one in [("all", found), *((f"{part.dimension} = {part.value}", part.preference) for part in segments)]:
        tested = one.HasField("paired_sequential")
        table.add_row(
            label,
            f"{one.user_count:,}",
            f"{one.treatment_win_count:,}",
            f"{one.control_win_count:,}",
            f"{one.tie_count:,}",
            f"{one.paired_sequential.value:+.4g}" if tested else "–",
            _interval(one.paired_sequential) if tested else "–",
            _interval(one.paired_fixed) if tested else "–",
            f"p {one.sign_test.p_value:.2g}" if tested else "–",
            f"{one.slate_count:,}",
        )
    return table


def _interval(test: pb.TestResult) -> str:
    return f"{test.low:+.4g} to {test.high:+.4g}, p {test.p_value:.2g}"
