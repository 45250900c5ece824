"""`rankloop bench`: speed, measured beside a peer or a limit in the same run."""

from __future__ import annotations

import asyncio
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from scripts.steps import steps

if TYPE_CHECKING:
    from benchmarks.readout import ReadoutTimes

JsonFile = Annotated[Path | None, typer.Option("--json", help="Where to write the figures as JSON.")]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def bench() -> None:
    """Measures speed beside a peer or a limit in the same run, on processes of its own. Let nothing else run meanwhile.

    Examples:

        rankloop bench track

        rankloop bench fold --events 200000 --json fold.json
    """


@app.command("track")
def track(
    events: Annotated[int, typer.Option(min=2000, help="Events sent in batches of 500.")] = 200_000,
    calls: Annotated[int, typer.Option(min=400, help="Calls with a single event.")] = 20_000,
    with_fold: Annotated[
        bool, typer.Option("--with-fold", help="Then events and their slates once more, while a collector folds.")
    ] = False,
    soak: Annotated[int, typer.Option(min=0, help="Then so many more events, watching the server's memory.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """TrackInteractions, durable, beside `insert_many` of the same documents and beside an empty call.

    Examples:

        rankloop bench track --events 100000 --calls 10000

        rankloop bench track --with-fold --soak 10000000 --json track.json
    """
    from benchmarks.track import bench as measure

    with tempfile.TemporaryDirectory(prefix="rankloop-bench-") as directory:
        found = asyncio.run(measure(Path(directory), events=events, single_calls=calls, with_fold=with_fold, soak=soak))
    rates = found.rates
    table = Table("what", "per second", "p50", "p99")
    for rate in rates.values():
        table.add_row(rate.name, f"{rate.per_second:,.0f}", f"{rate.p50_milliseconds:.1f} ms", f"{rate.p99_milliseconds:.1f} ms")
    ratios = {
        "batched_to_insert_many": rates["batched"].per_second / rates["insert_many"].per_second,
        "single_to_empty": rates["single"].per_second / rates["empty"].per_second,
    }
    Console().print(table)
    print(f"batches: {ratios['batched_to_insert_many']:.2f} × insert_many; single events: {ratios['single_to_empty']:.2f} × an empty call")
    content: dict[str, Any] = {"rates": {name: asdict(rate) for name, rate in rates.items()}, "ratios": ratios}
    if found.both is not None:
        both = found.both
        print(
            f"at once: {both.ingested_per_second:,.0f} entries per second taken in and {both.folded_per_second:,.0f} folded; "
            f"{both.backlog:,} were left, folded at {both.drained_per_second:,.0f} per second"
        )
        content["with_fold"] = asdict(both)
    if found.memory is not None:
        for at, size in found.memory.bytes_at:
            print(f"{at:>12,} events: server at {size / 2**20:.1f} MiB")
        print(f"second half: {found.memory.growth_per_million / 2**20:+.2f} MiB per million events")
        content["memory"] = {**asdict(found.memory), "growth_bytes_per_million": found.memory.growth_per_million}
    _write(json_file, content)


@app.command("fold")
def fold(
    events: Annotated[int, typer.Option(min=1000, help="Interactions, four to a slate of ten.")] = 100_000, json_file: JsonFile = None
) -> None:
    """The fold, beside a recount of the ledger that says whether it is exact.

    Examples:

        rankloop bench fold --events 50000
    """
    from benchmarks.fold import bench as measure

    with tempfile.TemporaryDirectory(prefix="rankloop-bench-") as directory:
        rate = asyncio.run(measure(Path(directory), events=events))
    said = "equal to a recount of the ledger" if rate.agrees else "NOT equal to a recount of the ledger"
    print(f"{rate.entries_per_second:,.0f} entries per second ({rate.interactions:,} interactions, {rate.slates:,} slates of ten); {said}")
    _write(json_file, {**asdict(rate), "entries_per_second": rate.entries_per_second})
    if not rate.agrees:
        raise typer.Exit(1)


@app.command("memory")
def memory(
    items: Annotated[int, typer.Option(min=1000, help="Items in the catalogue, each with three tags.")] = 1_000_000,
    days: Annotated[int, typer.Option(min=0, max=365, help="Days on which each item was shown.")] = 5,
    embedding_size: Annotated[int, typer.Option(min=0, max=4096, help="Size of the items' embeddings; 0: none.")] = 0,
    users: Annotated[int, typer.Option(min=1, help="Users whose history is kept.")] = 10_000,
    interactions: Annotated[int, typer.Option(min=1, help="Interactions of each user.")] = 50,
    json_file: JsonFile = None,
) -> None:
    """What a ranking worker's items and users take in memory. One million items shall take 1 GiB at most.

    Examples:

        rankloop bench memory

        rankloop bench memory --items 100000 --days 30 --embedding-size 64 --json memory.json
    """
    from benchmarks.memory import measure

    with steps(Console(stderr=True)) as progress:
        found = measure(items=items, days=days, embedding_size=embedding_size, users=users, interactions=interactions, progress=progress)
    million = found.items_bytes / found.items * 1e6 / 2**30
    table = Table("what", "bytes each", "per million")
    for what, size, count in (
        ("items: catalogue", found.catalogue_bytes, found.items),
        ("items: tallies", found.tallies_bytes, found.items),
        ("items", found.items_bytes, found.items),
        ("users", found.users_bytes, found.users),
    ):
        table.add_row(what, f"{size / count:,.0f}", f"{size / count * 1e6 / 2**30:.2f} GiB")
    Console().print(table)
    print(f"{found.items:,} items with {days} days each: {million:.2f} GiB per million; filled in {found.fill_seconds:.0f} s")
    _write(json_file, {**asdict(found), "items_gib_per_million": million})


@app.command("stats")
def stats(
    sizes: Annotated[list[int] | None, typer.Option("--events", min=1000, help="Events kept; may be given several times.")] = None,
    calls: Annotated[int, typer.Option(min=10, help="Calls of each kind.")] = 200,
    data_dir: Annotated[Path | None, typer.Option(help="Where the histories are kept for the next run; otherwise they are not.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Statistics over 30 days, with 100 thousand, 1 million and 10 million events kept, and the readout of an experiment over all of them.

    Writing ten million events takes half an hour and 5 GB; with --data-dir it is done once.

    Examples:

        rankloop bench stats --events 100000 --events 1000000

        rankloop bench stats --data-dir /var/tmp/rankloop-bench --json stats.json
    """
    from benchmarks.stats import bench as measure

    asked = sorted(sizes or [100_000, 1_000_000, 10_000_000])
    with tempfile.TemporaryDirectory(prefix="rankloop-bench-") as directory, steps(Console(stderr=True)) as progress:
        found, readouts = asyncio.run(measure(data_dir or Path(directory), asked, calls, progress))
    smallest = {one.call: one.p50_milliseconds for one in found if one.events == asked[0]}
    table = Table("call", "events", "first", "p50", "p99", f"p50 to {asked[0]:,}")
    for one in sorted(found, key=lambda one: (list(smallest).index(one.call), one.events)):
        table.add_row(
            one.call,
            f"{one.events:,}",
            f"{one.first_milliseconds:.1f} ms",
            f"{one.p50_milliseconds:.1f} ms",
            f"{one.p99_milliseconds:.1f} ms",
            f"{one.p50_milliseconds / smallest[one.call]:.2f} ×",
        )
    Console().print(table)
    Console().print(_readout_table(readouts))
    _write(json_file, {"calls": [asdict(one) for one in found], "readouts": [asdict(one) for one in readouts]})


def _readout_table(readouts: list[ReadoutTimes]) -> Table:
    table = Table("readout", "users", "digest made in", "cold", "cached", "by a walk", "assignment", "server's peak before", "and after")
    for one in readouts:
        table.add_row(
            f"{one.events:,} events",
            f"{one.users:,}",
            f"{one.build_seconds:.0f} s",
            f"{one.cold_milliseconds:,.0f} ms",
            f"{one.cached_milliseconds:.1f} ms",
            "" if one.walk_milliseconds is None else f"{one.walk_milliseconds:,.0f} ms",
            f"{one.assignment_microseconds:.1f} µs",
            f"{one.idle_bytes / 2**20:.0f} MiB",
            f"{one.peak_bytes / 2**20:.0f} MiB",
        )
    return table


@app.command("export")
def export(
    sizes: Annotated[list[int] | None, typer.Option("--events", min=1000, help="Events kept; may be given several times.")] = None,
    json_file: JsonFile = None,
) -> None:
    """`rankloop export` of interactions and slates in every form, beside reading the same documents with the driver alone; and its memory.

    Examples:

        rankloop bench export --events 20000 --events 100000 --json export.json
    """
    from benchmarks.export import bench as measure
    from benchmarks.export import rows

    asked = sorted(set(sizes or [100_000, 500_000]))
    with tempfile.TemporaryDirectory(prefix="rankloop-bench-") as directory, steps(Console(stderr=True)) as progress:
        found = asyncio.run(measure(Path(directory), asked, progress))
    print("\n".join(rows(found)))
    _write(json_file, {"exports": [{**asdict(one), "per_second": one.per_second} for one in found]})


@app.command("train")
def train(
    rows: Annotated[int, typer.Option(min=2_000, help="Impressions, ten to a slate.")] = 1_000_000,
    features: Annotated[int, typer.Option(min=10, max=1_000, help="Features of each.")] = 60,
    rounds: Annotated[int, typer.Option(min=1, max=20_000, help="Trees.")] = 500,
    json_file: JsonFile = None,
) -> None:
    """Training from MongoDB to the champion, beside lightgbm.train alone on the same matrix; its memory; a warm start on 1 % new data.

    Writing a million impressions takes some minutes and 2 GB of disk.

    Examples:

        rankloop bench train --json train.json

        rankloop bench train --rows 50000 --rounds 100
    """
    from benchmarks.train import bench as measure

    with tempfile.TemporaryDirectory(prefix="rankloop-bench-") as directory, steps(Console(stderr=True)) as progress:
        found = asyncio.run(measure(Path(directory), rows=rows, features=features, rounds=rounds, progress=progress))
    ratios = found.ratios
    table = Table("what", "budget", "measured", "beside")
    table.add_row(
        f"rankloop train, {found.rows:,} × {found.features}, {found.rounds} rounds",
        "≤ 1.6 ×",
        f"{ratios['full_to_lightgbm_alone']:.2f} × ({found.full_seconds:.1f} s)",
        f"lightgbm.train alone ({found.alone_seconds:.1f} s)",
    )
    table.add_row(
        "its peak memory",
        "≤ 2.5 ×",
        f"{ratios['peak_memory_to_matrix']:.2f} × ({found.peak_bytes / 2**20:,.0f} MiB)",
        f"the float64 matrix ({found.matrix_bytes / 2**20:,.0f} MiB)",
    )
    table.add_row(
        f"warm start, {found.warm_new_rows:,} new rows, {found.warm_rounds} rounds tried",
        "≤ 0.2 ×",
        f"{ratios['warm_start_to_full']:.2f} × ({found.warm_seconds:.1f} s)",
        "the full training",
    )
    Console().print(table)
    _write(json_file, {**asdict(found), "ratios": ratios})


@app.command("quality")
def quality(
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How many worlds.")] = 10,
    first_seed: Annotated[int, typer.Option(min=0, help="The first world's seed; the others follow it.")] = 1,
    users: Annotated[int, typer.Option(min=1, help="People of each world.")] = 300,
    slates: Annotated[int, typer.Option(min=1, help="Slates before the training, and again after it.")] = 6_000,
    json_file: JsonFile = None,
) -> None:
    """True NDCG@10 of the trained model beside that of prior_score, over simulated worlds; exit code 1 unless it is better in every one.

    Examples:

        rankloop bench quality --json quality.json

        rankloop bench quality --seeds 2 --users 100 --slates 1500
    """
    from benchmarks.quality import World, rows, summary
    from benchmarks.quality import bench as measure
    from scripts.simulation.progress import progress_bar

    worlds: list[World] = []
    with tempfile.TemporaryDirectory(prefix="rankloop-bench-") as directory, progress_bar(Console(stderr=True), "worlds", seeds) as advance:
        played = measure(Path(directory), seeds=seeds, first_seed=first_seed, users=users, slates=slates, each=lambda _: advance())
        worlds += asyncio.run(played)
    told = summary(worlds)
    print("\n".join(rows(worlds)))
    print(f"\nbetter than prior_score in {told['won']} of {told['worlds']} worlds")
    _write(
        json_file,
        {"worlds": [{**asdict(world), "gain": world.gain} for world in worlds], "summary": told, "users": users, "slates": slates},
    )
    if told["won"] < told["worlds"]:
        raise typer.Exit(1)


@app.command("interleaving")
def interleaving(
    users: Annotated[int, typer.Option(min=100, help="People; a quarter of them come to interleaved slates.")] = 1_200,
    slates: Annotated[int, typer.Option(min=500, help="Slates that the model learns from, and as many after it.")] = 6_000,
    batch: Annotated[int, typer.Option(min=10, help="People between two looks.")] = 100,
    calls: Annotated[int, typer.Option(min=10, help="Rankings of either kind whose time is taken.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="The world.")] = 1,
    json_file: JsonFile = None,
) -> None:
    """Users that an A/B test and interleaving need for the same verdict: a model against itself, weakened by chance.

    Also what a slate of two rankings costs beside one of a single ranking.

    Examples:

        rankloop bench interleaving --seed 2 --json interleaving.json
    """
    from benchmarks.interleaving import bench as measure

    with tempfile.TemporaryDirectory(prefix="rankloop-bench-") as directory:
        found = asyncio.run(measure(Path(directory), seed=seed, users=users, slates=slates, batch=batch, calls=calls, say=_say))
    table = Table("design", "better", "users until the verdict", "users for 80 % at one look", "users seen", "in the end")
    for name, one in (("A/B test", found.ab), ("interleaving", found.interleaving)):
        counts = [f"{count:,}" if count is not None else "–" for count in (one.users_at_verdict, one.users_needed, one.users_seen)]
        table.add_row(name, one.better or "–", *counts, one.sentence)
    Console().print(table)
    print(f"a ranking by a model: {found.single_milliseconds:.2f} ms; two interleaved: {found.interleaved_milliseconds:.2f} ms (median)")
    _write(json_file, asdict(found))


@app.command("rank")
def rank(
    calls: Annotated[int, typer.Option(min=100, help="Rankings of 100 candidates by one caller; others in proportion.")] = 2000,
    peer: Annotated[str, typer.Option(help="`mlserver`: beside MLServer too, in a virtual environment made the first time.")] = "",
    json_file: JsonFile = None,
    pages: Annotated[bool, typer.Option("--pages", help="Write the tables and the picture of this repository anew.")] = False,
    busy: Annotated[bool, typer.Option("--busy", help="With --pages: say that the machine was not quiet.")] = False,
) -> None:
    """Rank through the server, beside scoring alone: 100 candidates, 60 features, 500 trees of 31 leaves, the top 20 by MMR, recorded.

    Also with all features in a feature_matrix, with eight callers, and with 10 to 1,000 candidates; and where the time goes.

    Examples:

        rankloop bench rank --calls 300

        rankloop bench rank --peer mlserver --json rank.json
    """
    from benchmarks import latency_page
    from benchmarks.rank import bench as measure

    if peer not in ("", "mlserver"):
        raise typer.BadParameter("`mlserver` is the one peer there is", param_hint="--peer")
    with tempfile.TemporaryDirectory(prefix="rankloop-bench-") as directory:
        found = asyncio.run(measure(Path(directory), calls=calls, peer=bool(peer), say=_say))
    table = Table("what", "candidates", "callers", "per second", "p50", "p99")
    for one in found.timings:
        spans = (f"{one.p50_milliseconds:.3f} ms", f"{one.p99_milliseconds:.3f} ms")
        table.add_row(one.name, str(one.candidates), str(one.callers), f"{one.per_second:,.0f}", *spans)
    Console().print(table)
    print(f"\n{latency_page.budget_table(found)}\n\n{latency_page.profile_table(found)}\n\n{latency_page.processor_table(found)}")
    _write(json_file, asdict(found))
    if pages:
        print("\n".join(f"written: {path}" for path in latency_page.write_rank(found, quiet=not busy)))


@app.command("reload")
def reload(
    seconds: Annotated[float, typer.Option(min=15, help="Before the swap, and again with the swap.")] = 60.0,
    callers: Annotated[int, typer.Option(min=1, max=64, help="Callers that ask again as soon as they are answered.")] = 4,
    json_file: JsonFile = None,
    pages: Annotated[bool, typer.Option("--pages", help="Write the table of this repository anew.")] = False,
    busy: Annotated[bool, typer.Option("--busy", help="With --pages: say that the machine was not quiet.")] = False,
) -> None:
    """A model swap while rankings are asked for, beside the minute before. Exit code 1 if a call failed or was not ranked by a model.

    Examples:

        rankloop bench reload --seconds 20 --callers 2
    """
    from benchmarks import latency_page
    from benchmarks.reload import bench as measure

    with tempfile.TemporaryDirectory(prefix="rankloop-bench-") as directory:
        found = asyncio.run(measure(Path(directory), seconds=seconds, callers=callers, say=_say))
    print(latency_page.reload_table(found))
    _write(json_file, asdict(found))
    if pages:
        print("\n".join(f"written: {path}" for path in latency_page.write_reload(found, quiet=not busy)))
    if found.before.failed or found.during.failed:
        raise typer.Exit(1)


def _say(what: str) -> None:
    Console(stderr=True).print(f"▸ {what}", highlight=False)


def _write(path: Path | None, content: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(content, indent=2) + "\n")
