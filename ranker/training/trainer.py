"""One run of the trainer, from the ledger to the champion."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from ranker.features.schema import FeatureSchema
from ranker.models.bundle import MAX_CANNED_ROWS, BadBundle, Bundle
from ranker.models.passport import Metric, Passport, Slice, sorted_items, top_features
from ranker.models.registry import ModelRecord, ModelRegistry
from ranker.models.runs import Mode, TrainingRun, TrainingRuns, Trigger
from ranker.training import lambdarank, suitability
from ranker.training.arrivals import folded_interactions
from ranker.training.assessment import AFTER_MMR, CHAMPION, Assessment, Shown, shown_slates
from ranker.training.continuation import Continuation, continuation, require_same_features, split_new
from ranker.training.data import DatasetCounts, TrainingData
from ranker.training.dataset import Progress, count_interactions, load, newest_interaction
from ranker.training.fitness import Limits, constant_features, faults
from ranker.training.gate import judge
from ranker.training.labels import LABEL_GAIN
from ranker.training.lambdarank import Fitted
from ranker.training.measurement import sample_slates
from ranker.training.off_policy import PolicyValue
from ranker.training.policy_values import measured_values
from ranker.training.report import TrainingReport
from ranker.training.sampling import thinned
from ranker.training.segments import Segment, segments
from ranker.training.settings import TrainerSettings
from ranker.training.split import Split, moment, split
from ranker.training.tuning import Tuned, tune
from ranker.training.turn import kept_alive, life_sign, take_turn
from runtime.errors import Aborted, RankloopError
from runtime.lease import Lease
from runtime.mongo import Mongo

CLOCKS_AHEAD = timedelta(days=1)
"""How far ahead of ours the ledger lets a caller's clock be: what it holds by now is what happened by now."""

TRAIN_SAMPLE_SLATES = 2_000
"""The train slice's own figures are made on so many of its slates at most: they say how much was learned by heart, nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What the deployment's rankers do, as far as a training has to know."""

    schema: FeatureSchema | None = None
    """Its features, for slates recorded without; None: those are left out."""
    mmr_lambda: float = 0.7
    """The λ that serves where a request does not say, for what diversity costs."""
    model_budget_seconds: float = 0.05
    """The longest that rankers let a model take for a hundred candidates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """What to run."""

    settings: TrainerSettings
    run_id: str
    """The id the run gets, unless it takes up a request that waits."""
    clock: Callable[[], datetime]
    """The present moment, in UTC."""
    mode: Mode = "full"
    trigger: Trigger = "command"
    tune_trials: int = 0
    """Settings to try before a full training, 0: those in force are taken."""
    tune_seconds: float = 600.0
    """Longest to try, about; the trial of the settings in force is always finished."""
    serving: Serving = Serving()
    detailed: bool = False
    """Whether the report shall have segments and curves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Champion:
    """The model that serves."""

    version: str
    record: ModelRecord
    bundle: Bundle | None
    """None: its files cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What a run came to."""

    decision: str
    metrics: tuple[Metric, ...]
    bundle: Bundle | None = None
    record: ModelRecord | None = None
    promoted: bool = False
    segments: tuple[Segment, ...] = ()
    curves: Mapping[str, Any] = field(default_factory=dict)
    fitted: Fitted | None = None


async def train(mongo: Mongo, options: TrainingOptions, progress: Progress) -> TrainingReport:
    """Trains a model, measures it beside the baselines and the champion, publishes it, and promotes it if the gate passes it.

    With mode `evaluate-only` nothing is trained or published: champion and baselines are measured on the test slice.

    Raises:
        AlreadyTraining: another trainer is at work. It is no run, and nothing was looked at.
        CannotTrain: the data do not allow it. The run is in the history as failed, the champion untouched.
        FailedPrecondition: a warm start without a champion to continue, over other features, or of too large a forest.
    """
    if options.mode == "evaluate-only":
        return await _in_turn(mongo, None, options, progress)
    lease = await take_turn(mongo, options.run_id, options.clock)
    try:
        return await _in_turn(mongo, lease, options, progress)
    finally:
        await asyncio.shield(lease.release())


async def _in_turn(mongo: Mongo, lease: Lease | None, options: TrainingOptions, progress: Progress) -> TrainingReport:
    """A run that is in the history from its beginning, and ends there whatever way it ends."""
    runs, clock = TrainingRuns(mongo), options.clock
    await runs.sweep(clock())
    seen = await folded_interactions(mongo)
    begun = asyncio.ensure_future(runs.begin(options.run_id, clock(), trigger=options.trigger, mode=options.mode, interaction_count=seen))
    try:
        run = await asyncio.shield(begun)
    except asyncio.CancelledError as error:
        # Stopped while it began: the history may have it by now.
        await runs.fail(await begun, clock(), error=_told(error))
        raise
    try:
        report = await kept_alive(_run(mongo, run, options, progress), life_sign(lease, runs, run, clock))
    except BaseException as error:
        # Also when it is stopped: the history must not say for ever that it is running.
        await asyncio.shield(runs.fail(run, options.clock(), error=_told(error)))
        raise
    trained = options.mode != "evaluate-only"
    await runs.succeed(
        run,
        options.clock(),
        result=report.decision,
        row_count=report.slices[0].row_count if trained else 0,
        model_version=report.model_version if trained else "",
        promoted=report.promoted,
        metrics=report.metrics,
        rounds=None if report.rounds_added is None or report.rounds_removed is None else (report.rounds_added, report.rounds_removed),
    )
    return report


def _told(error: BaseException) -> str:
    if isinstance(error, RankloopError):
        return error.message
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return "stopped before it was done"
    return f"{type(error).__name__} in the trainer"


async def _run(mongo: Mongo, run: TrainingRun, options: TrainingOptions, progress: Progress) -> TrainingReport:
    settings, registry = options.settings, ModelRegistry(mongo)
    begin = run.begin_time or run.create_time
    start, end = begin - timedelta(days=settings.lookback_days), begin + CLOCKS_AHEAD
    found, older = await count_interactions(mongo, start, end), await newest_interaction(mongo, start)
    suitability.require_interactions(found, settings, newest_before=older, now=begin)
    champion, notes = await _champion(registry)
    base = None
    if options.mode == "warm-start":
        base = continuation(None if champion is None else champion.bundle, max_trees=settings.warm_start_max_trees)
        start = base.start(start)
    data, counts = await load(
        mongo,
        start,
        end,
        progress,
        untouched=settings.untouched,
        schema=options.serving.schema if settings.replay else None,
        max_slates_per_user=settings.max_slates_per_user,
    )
    suitability.require_variety(data, counts)
    gap = timedelta(hours=settings.gap_hours)
    if base is None:
        parts = split(data, validation_split=settings.validation_split, min_slates=settings.min_slates, gap=gap)
    else:
        require_same_features(base, data)
        parts = split_new(data, base, validation_split=settings.validation_split, min_slates=settings.min_slates, gap=gap)
    whole = parts.train.row_count
    parts = replace(parts, train=thinned(parts.train, negatives_per_positive=settings.negatives_per_positive, seed=settings.seed))
    counts = replace(counts, slates_in_gap=parts.in_gap, sampled_out_rows=whole - parts.train.row_count)
    if not suitability.labels_differ(parts.train):
        raise suitability.one_label("every slate to learn from")
    notes += suitability.notes(parts, None if champion is None else champion.record)
    tuned: Tuned | None = None
    assessment = Assessment(parts, settings.bootstrap_samples, settings.seed, settings.num_threads)
    await asyncio.to_thread(assessment.baselines, None if champion is None else champion.bundle)
    if options.mode == "evaluate-only":
        decision = "evaluated only: nothing was trained" + ("" if champion else ", and there is no champion to measure")
        metrics = await asyncio.to_thread(assessment.metrics)
        outcome = _Outcome(decision=decision, metrics=metrics, bundle=champion.bundle if champion else None)
    else:
        if options.tune_trials:
            tuned = await _tuned(parts.train, options, progress)
            settings = tuned.settings
        fitted = await _fitted(parts, base, settings.model_copy(update={"position_bias": False}), progress)
        if settings.position_bias:
            await asyncio.to_thread(assessment.plain, fitted.forest)
            # The labels of the validation slice have the bias, too: stopping by them would take the correction back.
            fitted = await _fitted(parts, base, settings, progress, rounds=max(1, fitted.rounds_added))
        progress.step("measuring")
        if base is not None and not fitted.rounds_added:
            metrics = await asyncio.to_thread(assessment.metrics)
            outcome = _Outcome(decision=_rounds_told(base, fitted), metrics=metrics, bundle=base.bundle, fitted=fitted)
        else:
            shown = await shown_slates(mongo, parts.test)
            bundle = await asyncio.to_thread(_bundled, fitted, parts, base, settings)
            bundle, metrics = await asyncio.to_thread(_measured, bundle, assessment, shown, options)
            limits = Limits(
                score_seconds=options.serving.model_budget_seconds,
                byte_count=settings.max_model_bytes,
                may_become_constant=settings.may_become_constant,
            )
            before = None if champion is None or champion.bundle is None else champion.bundle.passport
            unfit = await asyncio.to_thread(faults, bundle, before, limits)
            progress.step("publishing")
            outcome = await _published(registry, bundle, metrics, unfit, champion, options.clock)
            told = outcome.decision if base is None else f"{_rounds_told(base, fitted)}; {outcome.decision}"
            outcome = replace(outcome, decision=told, fitted=fitted)
            if options.detailed:
                curves = {**_curves(bundle, fitted), "calibration": assessment.calibration()}
                curves["trade_off"] = await asyncio.to_thread(assessment.trade_off, shown)
                outcome = replace(outcome, curves=curves)
    if options.detailed:
        outcome = replace(outcome, segments=await asyncio.to_thread(segments, parts, assessment.rankers, seed=settings.seed))
    report = _report(run, options, champion, outcome, parts, counts, notes)
    report = replace(report, tuned=tuned)
    return replace(report, off_policy=await _off_policy(mongo, parts.slices()[-1], options, champion, outcome))


async def _off_policy(
    mongo: Mongo, test: Slice, options: TrainingOptions, champion: _Champion | None, outcome: _Outcome
) -> dict[str, PolicyValue]:
    """What the orders of the new model and of the champion would have earned, from what was explored while the test slates were shown."""
    bundles = {
        "model": None if options.mode == "evaluate-only" else outcome.bundle,
        "champion": None if champion is None else champion.bundle,
    }
    known = {name: bundle for name, bundle in bundles.items() if bundle is not None}
    return await measured_values(mongo, test.start_time, test.end_time, known, seed=options.settings.seed)


async def _champion(registry: ModelRegistry) -> tuple[_Champion | None, list[str]]:
    """The model that serves, and what is to be said of it."""
    version = await registry.champion()
    if version is None:
        return None, []
    record = await registry.get(version)
    try:
        bundle = await registry.fetch(version)
        await asyncio.to_thread(bundle.verify)
    except BadBundle as error:
        return _Champion(version=version, record=record, bundle=None), [f"the champion {version} was not compared with: {error.message}"]
    return _Champion(version=version, record=record, bundle=bundle), []


async def _tuned(train: TrainingData, options: TrainingOptions, progress: Progress) -> Tuned:
    stop = threading.Event()
    progress.step("tuning", options.tune_trials)
    try:
        return await asyncio.to_thread(
            tune,
            train,
            options.settings,
            trials=options.tune_trials,
            seconds=options.tune_seconds,
            on_trial=lambda: progress.advance(1),
            stopped=stop.is_set,
        )
    except BaseException:
        stop.set()
        raise


async def _fitted(
    parts: Split, base: Continuation | None, settings: TrainerSettings, progress: Progress, *, rounds: int | None = None
) -> Fitted:
    stop = threading.Event()
    progress.step("training", rounds or settings.num_boost_round)
    try:
        return await asyncio.to_thread(
            lambdarank.fit,
            parts.train,
            parts.validation,
            settings,
            continued=None if base is None else base.bundle.forest,
            rounds=rounds,
            on_round=lambda _: progress.advance(1),
            stopped=stop.is_set,
        )
    except BaseException:
        # The thread goes on when its task is cancelled; it looks here between rounds.
        stop.set()
        raise


def _rounds_told(base: Continuation, fitted: Fitted) -> str:
    """What a warm start did, in words."""
    version, trees = base.bundle.model_version, base.bundle.passport.tree_count
    tried = fitted.rounds_added + fitted.rounds_removed
    if not fitted.rounds_added:
        return f"none of {tried} further rounds was better on the validation slates than {version} with its {trees} trees: nothing changes"
    return f"went on from {version} with its {trees} trees: {fitted.rounds_added} rounds added, {fitted.rounds_removed} removed again"


def _bundled(fitted: Fitted, parts: Split, base: Continuation | None, settings: TrainerSettings) -> Bundle:
    """A bundle of the trained forest, without a name and without metrics yet."""
    train, validation, _ = slices = parts.slices()
    learned = (train,) if base is None or base.learned is None else (base.learned, train)
    passport = Passport(
        model_version="",
        source="train",
        feature_names=parts.train.feature_names,
        schema_hash=parts.train.schema_hash,
        tree_count=fitted.tree_count,
        data_start_time=learned[0].start_time,
        data_end_time=validation.end_time,
        slate_count=sum(one.slate_count for one in learned),
        row_count=sum(one.row_count for one in learned),
        slices=(*learned[:-1], *slices),
        top_features=top_features(parts.train.feature_names, fitted.gains),
        constant_features=_constant(parts.train, base),
        label_gain=LABEL_GAIN,
        parameters=_parameters(settings, parts.train.row_count),
        library_versions=(("lightgbm", lightgbm.__version__), ("numpy", np.__version__)),
        parent_version="" if base is None else base.bundle.model_version,
    )
    return Bundle.make(passport, fitted.forest, canned_rows(parts.test))


def _constant(data: TrainingData, base: Continuation | None) -> tuple[str, ...]:
    """Features that the forest has seen one value of only; one that goes on from another has seen what that one saw."""
    found = constant_features(data.matrix, data.feature_names)
    known = None if base is None else base.bundle.passport.constant_features
    return found if known is None else tuple(name for name in found if name in known)


def _parameters(settings: TrainerSettings, row_count: int) -> tuple[tuple[str, str | int | float | bool], ...]:
    """What the forest depends on; the label gains stand in a field of their own."""
    told = {
        name: value for name, value in lambdarank.parameters(settings, row_count).items() if isinstance(value, str | int | float | bool)
    }
    names = (
        "num_boost_round",
        "early_stopping_rounds",
        "lookback_days",
        "validation_split",
        "gap_hours",
        "position_bias",
        "max_slates_per_user",
        "negatives_per_positive",
        "bootstrap_samples",
    )
    return sorted_items({**told, **{name: getattr(settings, name) for name in names}})


def canned_rows(data: TrainingData) -> NDArray[np.float64]:
    """Rows spread over the data, and one without any value; (at most MAX_CANNED_ROWS, features) float64."""
    chosen = np.unique(np.linspace(0, data.row_count - 1, MAX_CANNED_ROWS - 1).round().astype(np.int64))
    return np.vstack([data.matrix[chosen], np.full((1, data.matrix.shape[1]), np.nan)])


def _measured(bundle: Bundle, assessment: Assessment, shown: Shown, options: TrainingOptions) -> tuple[Bundle, tuple[Metric, ...]]:
    """The bundle with its name and figures, and those figures with the champion's, and those after MMR, beside them.

    The passport leaves these out: the same data and settings make the same bundle, whatever serves and the catalogue says by then.
    """
    parts = assessment.parts
    learned = (("train", sample_slates(parts.train, TRAIN_SAMPLE_SLATES)), ("validation", parts.validation))
    own = tuple(metric for name, data in learned for metric in assessment.learned(name, data, bundle))
    assessment.model(bundle, shown, balance=options.serving.mmr_lambda)
    metrics = own + assessment.metrics()
    lasting = tuple(metric for metric in metrics if CHAMPION not in metric.name and AFTER_MMR not in metric.name)
    passport = replace(bundle.passport, metrics=lasting)
    last_shown = moment(int(parts.test.show_times[-1]))
    return Bundle.make(passport.named(last_shown, bundle.forest), bundle.forest, bundle.canned.matrix), metrics


def _curves(bundle: Bundle, fitted: Fitted) -> dict[str, Any]:
    """What the plots of the training itself are made of."""
    names = bundle.passport.feature_names
    gained = top_features(names, fitted.gains, len(names))
    return {
        "learning": {"validation_ndcg_at_10": list(fitted.learning_curve), "rounds_kept": fitted.rounds_added},
        "importance": [{"feature": one.feature, "gain_share": one.gain_share} for one in gained],
    }


async def _published(
    registry: ModelRegistry,
    bundle: Bundle,
    metrics: tuple[Metric, ...],
    unfit: Sequence[str],
    champion: _Champion | None,
    clock: Callable[[], datetime],
) -> _Outcome:
    """Publishes the model, and promotes it if the gate passes it."""
    serving = None if champion is None else champion.version
    if serving == bundle.model_version:
        decision = "the same data and settings gave the champion itself again: nothing changes"
        return _Outcome(decision=decision, metrics=metrics, bundle=bundle)
    verdict = judge(metrics, unfit)
    outcome = _Outcome(decision=verdict.reason, metrics=metrics, bundle=bundle)
    if not verdict.passed:
        record = await registry.publish(bundle, clock(), status="refused", reason=verdict.reason, metrics=metrics)
        return replace(outcome, record=record)
    record = await registry.publish(bundle, clock(), reason=verdict.reason, metrics=metrics)
    if record.status == "refused":
        return replace(outcome, record=record, decision=f"this very model was refused before: {record.status_reason}")
    try:
        record = await registry.promote(record.model_version, clock(), reason=verdict.reason, replacing=serving)
    except Aborted as error:
        return replace(outcome, record=record, decision=f"{verdict.reason}; not promoted, it stays a candidate: {error.message}")
    return replace(outcome, record=record, promoted=True)


def _report(
    run: TrainingRun,
    options: TrainingOptions,
    champion: _Champion | None,
    outcome: _Outcome,
    parts: Split,
    counts: DatasetCounts,
    notes: list[str],
) -> TrainingReport:
    passport = None if outcome.bundle is None else outcome.bundle.passport
    return TrainingReport(
        run_id=run.run_id,
        mode=run.mode,
        trigger=run.trigger,
        model_version="" if passport is None else passport.model_version,
        promoted=outcome.promoted,
        decision=outcome.decision,
        champion_version="" if champion is None else champion.version,
        tree_count=0 if passport is None else passport.tree_count,
        counts=counts,
        slices=parts.slices(),
        metrics=outcome.metrics,
        top_features=() if passport is None else passport.top_features,
        parameters=() if passport is None else passport.parameters,
        notes=tuple(notes),
        rounds_added=None if outcome.fitted is None else outcome.fitted.rounds_added,
        rounds_removed=None if outcome.fitted is None else outcome.fitted.rounds_removed,
        segments=outcome.segments,
        curves=outcome.curves,
        seconds=(options.clock() - (run.begin_time or run.create_time)).total_seconds(),
    )
