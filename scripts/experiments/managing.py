"""`rankloop experiments create | list | show | start | stop | assignment | results`: the service, from a terminal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table

from rankloop.v1 import experiment_pb2 as pb
from rankloop.v1 import experiment_pb2_grpc
from scripts.connection import DEFAULT_ADDRESS, Connection
from scripts.experiments.preference_table import preference_table
from scripts.model_calls import Json, Server, moment
from scripts.simulation.failure import Failed
from server.experiments.metrics import name_of
from server.experiments.reweighting import rule_of

CALL_SECONDS = 60.0
PAGE_SIZE = 200

Result = TypeVar("Result")
Stub = experiment_pb2_grpc.ExperimentServiceStub
Name = Annotated[str, typer.Argument(help="The experiment's id.")]


def create_experiment(
    file: Annotated[Path, typer.Argument(help="An Experiment in its JSON form; see docs/how-to/run-an-experiment.md.")],
    start: Annotated[bool, typer.Option("--start", help="Start it as well.")] = False,
    server: Server = DEFAULT_ADDRESS,
    as_json: Json = False,
) -> None:
    """Writes a draft.

    Examples:

        rankloop experiments create variety.json

        rankloop experiments create variety.json --start
    """
    try:
        experiment = json_format.Parse(file.read_text(), pb.Experiment())
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror}") from error
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise Failed(f"{file} is no Experiment in its JSON form: {error}") from error

    async def ask(connection: Connection, stub: Stub) -> pb.Experiment:
        made = (await connection.call(stub.CreateExperiment, pb.CreateExperimentRequest(experiment=experiment))).experiment
        if start:
            request = pb.StartExperimentRequest(experiment_id=made.experiment_id, etag=made.etag)
            made = (await connection.call(stub.StartExperiment, request)).experiment
        return made

    _print_experiment(_ask(server, ask), as_json)


def list_experiments(
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 20, server: Server = DEFAULT_ADDRESS, as_json: Json = False
) -> None:
    """Lists experiments, the newest first.

    Examples:

        rankloop experiments list

        rankloop experiments list --json
    """

    async def ask(connection: Connection, stub: Stub) -> list[pb.Experiment]:
        found: list[pb.Experiment] = []
        token = ""
        while len(found) < limit:
            request = pb.ListExperimentsRequest(page_size=min(PAGE_SIZE, limit - len(found)), page_token=token)
            page = await connection.call(stub.ListExperiments, request)
            found += page.experiments
            token = page.next_page_token
            if not token:
                break
        return found

    found = _ask(server, ask)
    if as_json:
        print(json.dumps([_as_json(one) for one in found], indent=2))
        return
    table = Table("experiment", "state", "surface", "layer", "variants", "started", box=None, pad_edge=False)
    for one in found:
        weights = ", ".join(
            variant.variant_id if _interleaves(one) else f"{variant.variant_id} {variant.weight:.0%}" for variant in one.variants
        )
        weights += ", interleaved" if _interleaves(one) else ""
        started = moment(one.start_time) if one.HasField("start_time") else ""
        table.add_row(one.experiment_id, _state(one), one.surface or "all", one.layer, weights, started)
    Console().print(table if found else "no experiments yet; `rankloop experiments create FILE` writes one")


def show_experiment(name: Name, server: Server = DEFAULT_ADDRESS, as_json: Json = False) -> None:
    """Shows an experiment, its history, and its weights over time.

    Examples:

        rankloop experiments show variety
    """

    async def ask(connection: Connection, stub: Stub) -> pb.GetExperimentResponse:
        return await connection.call(stub.GetExperiment, pb.GetExperimentRequest(experiment_id=name))

    found = _ask(server, ask)
    if as_json:
        print(json.dumps(_as_json(found), indent=2))
        return
    _print_experiment(found.experiment, False)
    if found.experiment.HasField("bandit"):
        print(f"a bandit: {_rule(found.experiment)}")
    if found.experiment.stop_on_breach:
        print("stops by itself as soon as a guardrail is breached")
    if found.experiment.verdict:
        print(f"verdict: {found.experiment.verdict}")
    if found.experiment.weight_periods:
        Console().print(_weights_table(found.experiment))
    for change in found.changes:
        print(f"{moment(change.change_time)}  {change.action}{': ' if change.description else ''}{change.description}")


def start_experiment(name: Name, server: Server = DEFAULT_ADDRESS, as_json: Json = False) -> None:
    """Lets a draft run: from now on users are assigned.

    Examples:

        rankloop experiments start variety
    """

    async def ask(connection: Connection, stub: Stub) -> pb.Experiment:
        return (await connection.call(stub.StartExperiment, pb.StartExperimentRequest(experiment_id=name), once=True)).experiment

    _print_experiment(_ask(server, ask), as_json)


def stop_experiment(
    name: Name,
    verdict: Annotated[str, typer.Option(help="What was concluded, in words.")] = "",
    winner: Annotated[str, typer.Option(help="The variant that won.")] = "",
    promote: Annotated[bool, typer.Option("--promote", help="Let the winner's parameters hold for all users of the surface.")] = False,
    server: Server = DEFAULT_ADDRESS,
    as_json: Json = False,
) -> None:
    """Ends an experiment; with a verdict or a winner it is concluded.

    Examples:

        rankloop experiments stop variety

        rankloop experiments stop variety --winner more --verdict "More variety is clicked more." --promote
    """
    request = pb.StopExperimentRequest(experiment_id=name, verdict=verdict, winner_variant_id=winner, promote=promote)

    async def ask(connection: Connection, stub: Stub) -> pb.Experiment:
        return (await connection.call(stub.StopExperiment, request, once=True)).experiment

    _print_experiment(_ask(server, ask), as_json)


def show_assignment(
    name: Name, user: Annotated[str, typer.Argument(help="The user's id.")], server: Server = DEFAULT_ADDRESS, as_json: Json = False
) -> None:
    """Says which variant a user has, and why.

    Examples:

        rankloop experiments assignment variety ann
    """

    async def ask(connection: Connection, stub: Stub) -> pb.GetAssignmentResponse:
        return await connection.call(stub.GetAssignment, pb.GetAssignmentRequest(experiment_id=name, user_id=user))

    found = _ask(server, ask)
    if as_json:
        print(json.dumps(_as_json(found), indent=2))
        return
    reason = pb.AssignmentReason.Name(found.reason).removeprefix("ASSIGNMENT_REASON_").lower().replace("_", " ")
    print(f"{found.variant_id or ('both variants' if found.reason == pb.ASSIGNMENT_REASON_INTERLEAVED else 'no variant')} ({reason})")


def show_results(
    name: Name,
    by: Annotated[list[str] | None, typer.Option(help="A key of the slates' context to read the primary metric out by.")] = None,
    server: Server = DEFAULT_ADDRESS,
    as_json: Json = False,
) -> None:
    """Reads an experiment out: values, differences, and the verdict.

    Examples:

        rankloop experiments results variety

        rankloop experiments results variety --by device --json

        rankloop experiments results taste
    """
    request = pb.GetExperimentResultsRequest(experiment_id=name, segment_by=by or [])

    async def ask(connection: Connection, stub: Stub) -> pb.GetExperimentResultsResponse:
        return await connection.call(stub.GetExperimentResults, request)

    found = _ask(server, ask)
    if as_json:
        print(json.dumps(_as_json(found), indent=2))
        return
    console = Console()
    console.print(found.verdict.sentence, highlight=False, markup=False)
    if found.HasField("preference"):
        console.print(preference_table(found.preference, found.segments))
        if found.segment_warning:
            console.print(found.segment_warning, highlight=False, markup=False)
        if found.preference.single_slate_count:
            print(f"{found.preference.single_slate_count:,} slates are not counted: one of the two rankings was not to be had")
    else:
        _print_comparison(console, found)
    if found.mixed_user_count or found.tester_count or found.anonymous_slate_count:
        print(
            f"left out: {found.mixed_user_count:,} users seen in more than one variant, {found.tester_count:,} testers, "
            f"{found.anonymous_slate_count:,} slates without a user"
        )


def _print_comparison(console: Console, found: pb.GetExperimentResultsResponse) -> None:
    """Users, then metric after metric, of variants that were shown to users of their own."""
    counts = Table("variant", "users", "expected", "slates", box=None, pad_edge=False)
    for variant in found.variants:
        expected = f"{variant.expected_user_count:,.0f}"
        counts.add_row(variant.variant_id, f"{variant.user_count:,}", expected, f"{variant.exposure_count:,}")
    console.print(counts)
    for metric in found.metrics:
        console.print(_metric_table(metric.name, metric.role, metric.values, metric.comparisons))
    for segment in found.segments:
        console.print(_metric_table(f"{segment.dimension} = {segment.value}", "segment", segment.values, segment.comparisons))
    if found.segment_warning:
        console.print(found.segment_warning, highlight=False, markup=False)


def _rule(experiment: pb.Experiment) -> str:
    """What a bandit's weights follow, in words."""
    rule, metric = rule_of(experiment.bandit), name_of(experiment.primary_metric)
    return (
        f"weights follow {metric}, at least {rule.floor:.1%} each, changed every {rule.update_interval} at most, once every variant has "
        f"{rule.min_users:,} users"
    )


def _weights_table(experiment: pb.Experiment) -> Table:
    """Every change of weights."""
    names = [variant.variant_id for variant in experiment.variants]
    table = Table("weights since", *names, box=None, pad_edge=False)
    for period in experiment.weight_periods:
        table.add_row(moment(period.start_time), *(f"{period.weights[name]:.1%}" for name in names))
    return table


def _metric_table(name: str, role: str, values: Any, comparisons: Any) -> Table:
    """A metric: values, and what every variant has over the control, in both results."""
    table = Table("variant", "value", "best", "difference", "always valid (look any day)", "fixed horizon (one look)", "users")
    table.title, table.title_justify = f"{name} ({role})", "left"
    against = {one.variant_id: one for one in comparisons}
    for value in values:
        one = against.get(value.variant_id)
        relative = one is not None and one.HasField("relative_sequential")
        sequential = None if one is None else one.relative_sequential if relative else one.absolute_sequential
        fixed = None if one is None else one.relative_fixed if relative else one.absolute_fixed
        table.add_row(
            value.variant_id,
            f"{value.value:.5g}" if value.HasField("value") else "–",
            f"{value.probability_to_be_best:.0%}" if value.HasField("probability_to_be_best") else "–",
            _amount(sequential.value, relative) if sequential is not None and sequential.test else "–",
            _interval(sequential, relative),
            _interval(fixed, relative),
            f"{value.user_count:,}",
        )
    return table


def _interval(test: pb.TestResult | None, relative: bool) -> str:
    if test is None or not test.test:
        return "–"
    return f"{_amount(test.low, relative)} to {_amount(test.high, relative)}, p {test.p_value:.2g}"


def _amount(value: float, relative: bool) -> str:
    return f"{value:+.1%}" if relative else f"{value:+.4g}"


def _print_experiment(experiment: pb.Experiment, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_as_json(experiment), indent=2))
        return
    print(f"{experiment.experiment_id} is {_state(experiment)}")
    if experiment.planned_users_per_variant:
        print(f"planned: {experiment.planned_users_per_variant:,} users per variant")
    for variant in experiment.variants:
        control = ", the control" if variant.variant_id == experiment.control_variant_id else ""
        whom = "interleaved for every user" if _interleaves(experiment) else f"{variant.weight:.1%} of the users"
        print(f"  {variant.variant_id}: {whom}{control}")


def _interleaves(experiment: pb.Experiment) -> bool:
    return experiment.method == pb.EXPERIMENT_METHOD_INTERLEAVING


def _state(experiment: pb.Experiment) -> str:
    return pb.ExperimentState.Name(experiment.state).removeprefix("EXPERIMENT_STATE_").lower()


def _as_json(message: Message) -> Any:
    return json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _ask(server: str, question: Callable[[Connection, Stub], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        async with Connection(server, deadline_seconds=CALL_SECONDS, patience_seconds=10) as connection:
            await connection.reach()
            return await question(connection, Stub(connection.channel))

    return asyncio.run(run())
