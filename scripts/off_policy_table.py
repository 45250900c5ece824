"""Off-policy estimates as a person reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.table import Table

from ranker.training.off_policy import PolicyValue

ESTIMATORS = {"ips": "IPS", "clipped_ips": "clipped IPS", "snips": "SNIPS", "dr": "DR"}
RANKERS = {"model": "this model's order", "champion": "the champion's order"}


def off_policy_table(values: Mapping[str, PolicyValue]) -> Table:
    """What the orders would have earned; without a row where the log says nothing."""
    table = Table(title="Mean label per impression, from what was explored", title_justify="left", caption_justify="left")
    table.add_column("policy")
    table.add_column("by")
    table.add_column("value", justify="right")
    table.add_column("standard error", justify="right")
    told = [value for value in values.values() if value.estimates]
    if told:
        first = told[0]
        assert first.logged_value is not None
        table.add_row("as it was shown", "logged", f"{first.logged_value:.5f}", "")
    for name, value in values.items():
        for kind, estimate in value.estimates.items():
            interval = f"{estimate.value:.5f} ({estimate.low:.5f} to {estimate.high:.5f})"
            table.add_row(RANKERS.get(name, name), ESTIMATORS[kind], interval, f"{estimate.standard_error:.5f}")
    table.caption = "; ".join(
        f"{RANKERS.get(name, name)}: {value.impression_count:,} impressions weigh as much as {value.effective_sample:,.0f}, "
        f"conversions as {value.effective_conversions:,.0f}; weights up to {value.largest_weight:.1f}, {value.mean_weight:.2f} on average"
        for name, value in values.items()
        if value.estimates
    )
    return table


def off_policy_refusals(values: Mapping[str, PolicyValue], *, asked: bool) -> Iterator[str]:
    """Why there are no estimates, once for each reason; where nothing was explored, only if somebody `asked` to evaluate."""
    usual = set() if asked else {"NO_PROPENSITIES", "NO_RANDOMNESS"}
    texts = {value.refusal_text for value in values.values() if value.refusal is not None and value.refusal not in usual}
    yield from (f"no off-policy estimate: {text}" for text in sorted(texts))
