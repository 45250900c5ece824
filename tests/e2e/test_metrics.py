"""What a running stack tells Prometheus, health probes and those who ask for its contract."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from rankloop.v1 import catalog_pb2, export_pb2, model_pb2, ranking_pb2, stats_pb2, tracking_pb2
from rankloop.v1.ranking_pb2 import Candidate, RankRequest
from rankloop.v1.tracking_pb2 import Interaction, TrackInteractionsRequest
from rankloop.worker.v1 import worker_pb2
from tests.e2e.stack import CALL_SECONDS, Client, Stack, eventually, failure_of

PUBLIC = {
    method.full_name
    for module in (tracking_pb2, ranking_pb2, catalog_pb2, stats_pb2, model_pb2, export_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
ANSWERED_BY = {
    "server": PUBLIC,
    "collector": {method.full_name for method in tracking_pb2.DESCRIPTOR.services_by_name["TrackingService"].methods},
    "ranker": {method.full_name for method in worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].methods},
}


def scraped(stack: Stack, process: str) -> dict[str, Metric]:
    """The metrics of a process by name, read as Prometheus reads them."""
    with urllib.request.urlopen(stack.ready["metrics"][process], timeout=CALL_SECONDS) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        return {family.name: family for family in text_string_to_metric_families(answer.read().decode())}


def sample(families: Mapping[str, Metric], name: str, **labels: str) -> float:
    """One sample's value; 0 where it is not there yet."""
    found = [
        one.value for family in families.values() for one in family.samples if one.name == name and labels.items() <= one.labels.items()
    ]
    return sum(found)


def methods_of(samples: Iterable[Any], name: str) -> set[str]:
    """The methods that a metric has samples of."""
    return {f"{one.labels['grpc_service']}.{one.labels['grpc_method']}" for one in samples if one.name == name}


@pytest.mark.parametrize("process", ANSWERED_BY)
def test_every_method_has_its_label_sets_from_the_start(stack: Stack, process: str) -> None:
    families = scraped(stack, process)
    for family, name in (
        ("grpc_server_started", "grpc_server_started_total"),
        ("grpc_server_handled", "grpc_server_handled_total"),
        ("grpc_server_handling_seconds", "grpc_server_handling_seconds_count"),
    ):
        assert ANSWERED_BY[process] <= methods_of(families[family].samples, name)
    assert families["grpc_server_started"].type == families["grpc_server_handled"].type == "counter"
    assert families["grpc_server_handling_seconds"].type == "histogram"
    handled = [one for one in families["grpc_server_handled"].samples if one.name.endswith("_total")]
    in_ok = {f"{one.labels['grpc_service']}.{one.labels['grpc_method']}" for one in handled if one.labels["grpc_code"] == "OK"}
    assert ANSWERED_BY[process] <= in_ok
    streams = {one.labels["grpc_method"] for one in handled if one.labels["grpc_type"] == "server_stream"}
    assert streams == ({"ExportRecords", "WatchOverview"} if process == "server" else set())
    assert sample(families, "process_resident_memory_bytes") > 0
    if process == "collector":  # which nobody calls here: there, and 0
        assert sample(families, "grpc_server_started_total", grpc_service="rankloop.v1.TrackingService") == 0


async def test_counts_go_up_by_what_is_called(stack: Stack, client: Client) -> None:
    service = {"grpc_service": "rankloop.v1.TrackingService", "grpc_method": "TrackInteractions", "grpc_type": "unary"}
    before = scraped(stack, "server")
    sound = TrackInteractionsRequest(interactions=[Interaction(event_id="counted", user_id="u", item_id="i", type="click")])
    for _ in range(3):
        await client.tracking.TrackInteractions(sound, timeout=CALL_SECONDS)
    await failure_of(client.tracking.TrackInteractions(TrackInteractionsRequest(), timeout=CALL_SECONDS))
    raw: Any = client.channel.unary_unary("/rankloop.v1.TrackingService/TrackInteractions")
    await failure_of(raw(b"\x07", timeout=CALL_SECONDS))
    after = scraped(stack, "server")

    def more(name: str, **labels: str) -> float:
        return sample(after, name, **labels) - sample(before, name, **labels)

    assert more("grpc_server_started_total", **service) == 5
    assert more("grpc_server_handled_total", **service, grpc_code="OK") == 3
    assert more("grpc_server_handled_total", **service, grpc_code="InvalidArgument") == 2
    assert more("grpc_server_handling_seconds_count", **service) == 5
    assert more("grpc_server_handling_seconds_bucket", **service, le="+Inf") == 5
    assert more("grpc_server_handling_seconds_sum", **service) > 0
    assert more("rankloop_ledger_entries_total", kind="interactions", fate="accepted") <= 1
    assert more("rankloop_ledger_entries_total", kind="interactions") == 3


async def test_what_the_loop_does_shows_in_its_metrics(stack: Stack, client: Client) -> None:
    before = {process: scraped(stack, process) for process in ANSWERED_BY}
    bad = TrackInteractionsRequest(interactions=[Interaction(event_id="bad", user_id="u", item_id="i", type="nonsense")])
    await client.tracking.TrackInteractions(bad, timeout=CALL_SECONDS)
    await client.ranking.Rank(RankRequest(candidates=[Candidate(item_id="a")]), timeout=CALL_SECONDS)

    def more(process: str, name: str, **labels: str) -> float:
        return sample(scraped(stack, process), name, **labels) - sample(before[process], name, **labels)

    async def seen() -> bool:
        return (
            more("server", "rankloop_slates_recorded_total") == 1 and more("collector", "rankloop_fold_entries_total", kind="slates") >= 1
        )

    await eventually(seen)
    assert more("server", "rankloop_quarantined_entries_total", kind="interactions", reason="UNKNOWN_TYPE") == 1
    assert more("server", "rankloop_rank_answers_total", fallback_reason="NO_MODEL") == 1
    ranker = {"grpc_service": "rankloop.worker.v1.WorkerService", "grpc_method": "Rank"}
    assert more("ranker", "grpc_server_handled_total", grpc_code="OK", **ranker) == 1
    assert sample(scraped(stack, "collector"), "rankloop_fold_active") == 1

    async def caught_up() -> bool:
        families = scraped(stack, "collector")
        return sample(families, "rankloop_fold_lag_entries") == 0 and sample(families, "rankloop_fold_lag_seconds") == 0

    await eventually(caught_up)


async def test_a_strangers_method_names_do_not_become_labels(stack: Stack, client: Client) -> None:
    call: Any = client.channel.unary_unary("/rankloop.v1.TrackingService/MadeUpByAStranger")
    await failure_of(call(b"", timeout=CALL_SECONDS))
    for family in scraped(stack, "server").values():
        assert not any("MadeUpByAStranger" in one.labels.values() for one in family.samples)


async def test_health_is_told_for_the_whole_and_for_each_service(client: Client) -> None:
    health: Any = health_pb2_grpc.HealthStub(client.channel)
    names = {name.rpartition(".")[0] for name in PUBLIC}
    for name in ["", *sorted(names)]:
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=CALL_SECONDS)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, name


async def test_the_contract_can_be_asked_for(client: Client) -> None:
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(client.channel)  # type: ignore[arg-type]
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="rankloop.v1.RankingService"),
    ]
    listed, described = [answer async for answer in reflection.ServerReflectionInfo(iter(requests), timeout=CALL_SECONDS)]
    names = {service.name for service in listed.list_services_response.service}
    assert {name.rpartition(".")[0] for name in PUBLIC} <= names
    assert "grpc.health.v1.Health" in names
    assert not any("worker" in name for name in names), "between our own processes, not for callers"
    assert described.file_descriptor_response.file_descriptor_proto
