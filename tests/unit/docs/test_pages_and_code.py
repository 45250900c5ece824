"""What hand-written pages name is in the code, and what the code says is on the pages."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator

import prometheus_client

from runtime import errors
from runtime.rpc.status import STATUS_OF
from tests.unit.docs.documents import PAGES, ROOT

ERRORS = (ROOT / "docs" / "reference" / "errors.md").read_text()
OPERATE = (ROOT / "docs" / "how-to" / "operate.md").read_text()
NO_REASONS = {
    "INTERNAL",
    "STORAGE",  # no failure is of this kind itself
    "MISCONFIGURED",  # told on the command line
    "BAD_BUNDLE",  # told as the reason of a refusal
    "CANNOT_TRAIN",  # every one has a reason of its own
    "LEASE_LOST",  # between fold workers
    "LEASE_HELD",
    "MODEL_SERVES",  # between a ranker and the registry
    "TRAINING_RUN_NOT_FOUND",  # between the trainer and its history
}


def reasons_in(room: str) -> Iterator[str]:
    """Words in capitals that a room's code has as constants: reasons, unless they are variables or options of others."""
    for path in sorted((ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and re.fullmatch(r"[A-Z]{4,}(_[A-Z]+)*|[A-Z]+(_[A-Z]+)+", node.value)
            ):
                yield node.value


def documented(pattern: str, text: str) -> set[str]:
    return set(re.findall(pattern, text))


def test_every_status_is_on_the_page_with_its_reason() -> None:
    for kind, code in STATUS_OF.items():
        if kind is errors.Misconfigured:
            continue
        rows = [line for line in ERRORS.splitlines() if line.startswith(f"| `{code.name}` |") and f"`{kind.reason}`" in line]
        assert rows, kind


def test_every_reason_in_the_code_is_on_the_page() -> None:
    found = {reason for room in ("collector", "ranker", "server") for reason in reasons_in(room)}
    found = {one for one in found if not one.startswith("RANKLOOP_")} - NO_REASONS
    assert "UNKNOWN_TYPE" in found
    assert not found - documented(r"`([A-Z_]{4,})`", ERRORS)


def test_every_reason_on_the_page_is_in_the_code() -> None:
    code = "\n".join(
        path.read_text() for room in ("runtime", "collector", "ranker", "server") for path in sorted((ROOT / room).rglob("*.py"))
    )
    rows = "\n".join(line for line in ERRORS.splitlines() if line.startswith("|"))
    named = documented(r"`([A-Z_]{4,})`", rows) - {code.name for code in STATUS_OF.values()}
    assert not {reason for reason in named if f'"{reason}"' not in code}


def test_every_metric_on_a_page_is_one_that_a_process_has() -> None:
    for module in ("collector.process", "ranker.process", "server.process", "ranker.training.metrics"):
        importlib.import_module(module)
    names = {sample.name for metric in prometheus_client.REGISTRY.collect() for sample in metric.samples}
    # Metrics with labels have no samples before their first use, so their families count as well.
    for metric in prometheus_client.REGISTRY.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count", ""]}.get(metric.type, [""])
        names |= {metric.name + suffix for suffix in suffixes}
    for page in PAGES:
        used = documented(
            r"\b((?:rankloop_(?:commit|fold|ledger|quarantined|rank|ranker|retention|slates|trainer)|grpc_server)_[a-z_]+)",
            page.read_text(),
        )
        assert not used - names, page
    assert "rankloop_fold_lag_seconds" in OPERATE


def test_settings_named_on_pages_are_there() -> None:
    from scripts.configuration import Configuration, fields

    known = {".".join(path) for path in fields()}
    sections = "|".join(Configuration.model_fields)
    for page in PAGES:
        used = documented(rf"`((?:{sections})\.[a-z_]+)`", page.read_text())
        assert not used - known - {"labels.types"}, page
