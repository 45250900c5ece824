"""How a server spreads over ranking workers that hang, lie, leave and come back; each is a gRPC server that does what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from rankloop.v1.ranking_pb2 import Candidate, RankedItem, RankResponse
from rankloop.v1.ranking_pb2 import RankRequest as PublicRankRequest
from rankloop.worker.v1 import worker_pb2
from rankloop.worker.v1.worker_pb2 import RankRequest, ServedItems
from runtime.errors import InvalidInput, NotFound, Overloaded
from runtime.rpc.status import DETAILS_KEY, details_of, status_of
from server.ranker_link import is_sound
from server.rankers import SHED, NoRanker, RankerPool

AMPLE_SECONDS = 20.0
SERVICE = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name
Behaviour = Callable[[bytes, Any], Awaitable[bytes]]


def asked(ranking_id: str = "r", count: int = 3) -> RankRequest:
    candidates = [Candidate(item_id=f"i{number}") for number in range(count)]
    return RankRequest(request=PublicRankRequest(candidates=candidates), ranking_id=ranking_id)


def slate(request: RankRequest) -> worker_pb2.RankResponse:
    """The candidates from the last to the first, of two features each."""
    order = list(reversed(range(len(request.request.candidates))))
    items = [RankedItem(item_id=request.request.candidates[place].item_id, position=at) for at, place in enumerate(order, start=1)]
    served = ServedItems(item_types=["t"] * len(order), tiers=[""] * len(order), candidate_indexes=order, features=bytes(16 * len(order)))
    return worker_pb2.RankResponse(response=RankResponse(ranking_id=request.ranking_id, items=items), served=served)


async def ranks(request: bytes, context: Any) -> bytes:
    return slate(RankRequest.FromString(request)).SerializeToString()


async def hangs(request: bytes, context: Any) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


async def says_noise(request: bytes, context: Any) -> bytes:
    return b"\xff\xff noise"


async def says_nothing(request: bytes, context: Any) -> bytes:
    return b""


async def is_ready(request: bytes, context: Any) -> bytes:
    return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING).SerializeToString()


async def is_not_ready(request: bytes, context: Any) -> bytes:
    return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING).SerializeToString()


async def ranks_another(request: bytes, context: Any) -> bytes:
    return slate(asked("another")).SerializeToString()


def fails(code: grpc.StatusCode, error: Any = None) -> Behaviour:
    """Aborts; with an error of ours, in the words of a worker of ours."""

    async def failing(request: bytes, context: Any) -> bytes:
        details = () if error is None else ((DETAILS_KEY, details_of(error, code)),)
        await context.abort(code, "as told", trailing_metadata=details)
        raise AssertionError

    return failing


def says(error: Any) -> Behaviour:
    return fails(status_of(error) or grpc.StatusCode.INTERNAL, error)


class Stranger:
    """A gRPC server at a worker's address."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.probed: Behaviour = is_ready
        self.calls = 0
        self.address = "127.0.0.1:0"
        self._server: grpc.aio.Server | None = None

    async def come(self) -> None:
        """Listens, where it did before."""
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        handlers = {
            "Rank": grpc.unary_unary_rpc_method_handler(self._rank),
        }
        health = {"Check": grpc.unary_unary_rpc_method_handler(self._check)}
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, handlers), grpc.method_handlers_generic_handler("grpc.health.v1.Health", health))
        )
        port = self._server.add_insecure_port(self.address)
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def leave(self) -> None:
        """Breaks everything off."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def _rank(self, request: bytes, context: Any) -> bytes:
        self.calls += 1
        return await self.behaviour(request, context)

    async def _check(self, request: bytes, context: Any) -> bytes:
        return await self.probed(request, context)


@asynccontextmanager
async def spread(
    *behaviours: Behaviour, in_flight_limit: int = 32, queue_capacity: int = 100
) -> AsyncIterator[tuple[RankerPool, list[Stranger]]]:
    """A pool over strangers that do as told."""
    strangers = [Stranger(behaviour) for behaviour in behaviours]
    for stranger in strangers:
        await stranger.come()
    addresses = [stranger.address for stranger in strangers]
    pool = RankerPool(addresses, rest_seconds=0.05, in_flight_limit=in_flight_limit, queue_capacity=queue_capacity)
    running = asyncio.create_task(pool.run())
    try:
        yield pool, strangers
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await pool.close()
        for stranger in strangers:
            await stranger.leave()


async def reason_of(pool: RankerPool, seconds: float) -> str:
    """Why it was not ranked; empty: it was."""
    try:
        answer = await pool.rank(asked(), timeout_seconds=seconds)
    except NoRanker as error:
        return error.reason
    assert [item.item_id for item in answer.response.items] == ["i2", "i1", "i0"]
    return ""


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(AMPLE_SECONDS):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_all_get_their_share() -> None:
    async with spread(ranks, ranks, ranks) as (pool, strangers):
        for _ in range(30):
            assert await reason_of(pool, AMPLE_SECONDS) == ""
        assert [stranger.calls for stranger in strangers] == [10, 10, 10]


async def test_who_has_much_to_do_gets_less() -> None:
    release = asyncio.Event()

    async def slow(request: bytes, context: Any) -> bytes:
        await release.wait()
        return await ranks(request, context)

    async with spread(slow, ranks) as (pool, (busy, idle)):
        stuck = asyncio.create_task(reason_of(pool, AMPLE_SECONDS))
        await until(lambda: _true(busy.calls == 1))
        for _ in range(10):
            assert await reason_of(pool, AMPLE_SECONDS) == ""
        assert (busy.calls, idle.calls) == (1, 10)
        release.set()
        assert await stuck == ""


async def _true(value: bool) -> bool:
    return value


async def test_who_hangs_costs_a_second_call_and_no_slate_and_is_asked_again_when_it_answers() -> None:
    async with spread(hangs, ranks) as (pool, (hanging, well)):
        hanging.probed = hangs
        reasons = [await reason_of(pool, 1.0) for _ in range(6)]
        assert reasons == [""] * 6, "the other one was asked after half of the time"
        assert hanging.calls == 1, "and then left alone"
        hanging.behaviour, hanging.probed = ranks, is_ready
        await until(lambda: _asked(pool, hanging, 1))
        assert well.calls >= 6


async def _asked(pool: RankerPool, stranger: Stranger, more_than: int) -> bool:
    assert await reason_of(pool, AMPLE_SECONDS) == ""
    return stranger.calls > more_than


async def test_when_all_hang_callers_hear_so_in_time_and_then_at_once() -> None:
    async with spread(hangs, hangs) as (pool, strangers):
        for stranger in strangers:
            stranger.probed = hangs
        for _ in range(12):
            assert await reason_of(pool, 0.05) == "RANKER_TIMEOUT"
        told = sum(stranger.calls for stranger in strangers)
        for _ in range(50):
            assert await reason_of(pool, AMPLE_SECONDS) == "RANKER_TIMEOUT", "without waiting: nobody is asked any more"
        assert sum(stranger.calls for stranger in strangers) == told
        for stranger in strangers:
            stranger.behaviour, stranger.probed = ranks, is_ready
        await until(lambda: _is(pool, ""))


async def _is(pool: RankerPool, reason: str) -> bool:
    return await reason_of(pool, AMPLE_SECONDS) == reason


async def test_who_leaves_in_mid_call_costs_no_slate_and_is_found_when_it_is_back() -> None:
    async with spread(hangs, ranks) as (pool, (leaving, _)):
        calls = [asyncio.create_task(reason_of(pool, AMPLE_SECONDS)) for _ in range(6)]
        await until(lambda: _true(leaving.calls >= 1))
        await leaving.leave()
        assert await asyncio.gather(*calls) == [""] * 6
        before = leaving.calls
        for _ in range(20):
            assert await reason_of(pool, AMPLE_SECONDS) == ""
        assert leaving.calls == before
        leaving.behaviour = ranks
        await leaving.come()
        await until(lambda: _asked(pool, leaving, before))


async def test_alone_and_gone_is_unavailable_until_it_is_back() -> None:
    async with spread(ranks) as (pool, (only,)):
        await only.leave()
        assert await reason_of(pool, AMPLE_SECONDS) == "RANKER_UNAVAILABLE"
        assert await reason_of(pool, AMPLE_SECONDS) == "RANKER_UNAVAILABLE"
        await only.come()
        await until(lambda: _is(pool, ""))


async def test_who_comes_back_gets_no_calls_before_it_is_ready() -> None:
    async with spread(ranks, ranks) as (pool, (starting, _)):
        await starting.leave()
        for _ in range(4):
            assert await reason_of(pool, AMPLE_SECONDS) == ""
        probes = 0

        async def counted(request: bytes, context: Any) -> bytes:
            nonlocal probes
            probes += 1
            return await is_not_ready(request, context)

        before, starting.probed = starting.calls, counted
        await starting.come()
        await until(lambda: _true(probes >= 3))
        for _ in range(6):
            assert await reason_of(pool, AMPLE_SECONDS) == ""
        assert starting.calls == before, "it answers, and has yet to load its model"
        starting.probed = is_ready
        await until(lambda: _asked(pool, starting, before))


@pytest.mark.parametrize(
    "nonsense",
    [says_noise, says_nothing, ranks_another, fails(grpc.StatusCode.UNIMPLEMENTED), fails(grpc.StatusCode.INVALID_ARGUMENT)],
    ids=["noise", "nothing", "another slate", "no such method", "blames the caller"],
)
async def test_who_speaks_nonsense_costs_no_slate_and_is_left_alone(nonsense: Behaviour) -> None:
    async with spread(nonsense, ranks) as (pool, (liar, _)):
        liar.probed = fails(grpc.StatusCode.UNIMPLEMENTED)
        for _ in range(12):
            assert await reason_of(pool, AMPLE_SECONDS) == ""
        assert liar.calls == 1
        liar.behaviour, liar.probed = ranks, is_ready
        await until(lambda: _asked(pool, liar, 1))


async def test_alone_and_speaking_nonsense_is_failed() -> None:
    async with spread(says_noise) as (pool, _):
        assert await reason_of(pool, AMPLE_SECONDS) == "RANKER_FAILED"


async def test_what_a_worker_says_of_the_request_reaches_the_caller() -> None:
    async with spread(says(InvalidInput.of("top_k", "OUT_OF_RANGE", "is below 0"))) as (pool, (worker,)):
        with pytest.raises(InvalidInput) as refusal:
            await pool.rank(asked(), timeout_seconds=AMPLE_SECONDS)
        assert [one.field for one in refusal.value.violations] == ["top_k"]
        worker.behaviour = says(NotFound("there is no model m"))
        with pytest.raises(NotFound):
            await pool.rank(asked(), timeout_seconds=AMPLE_SECONDS)
        worker.behaviour = ranks
        assert await reason_of(pool, AMPLE_SECONDS) == "", "it is well all the while"


async def test_who_sheds_is_well_and_another_is_asked() -> None:
    overloaded = says(Overloaded("too much", retry_after_seconds=1))
    async with spread(overloaded, ranks) as (pool, (busy, idle)):
        assert [await reason_of(pool, AMPLE_SECONDS) for _ in range(6)] == [""] * 6
        assert busy.calls > 1
        idle.behaviour = overloaded
        assert await reason_of(pool, AMPLE_SECONDS) == "RANKER_OVERLOADED"
        idle.behaviour = ranks
        assert await reason_of(pool, AMPLE_SECONDS) == ""


async def test_beyond_what_workers_take_calls_wait_in_line_and_beyond_that_they_are_told_at_once() -> None:
    release = asyncio.Event()

    async def slow(request: bytes, context: Any) -> bytes:
        await release.wait()
        return await ranks(request, context)

    async with spread(slow, in_flight_limit=2, queue_capacity=3) as (pool, (worker,)):
        full = SHED.labels("full")._value.get()
        calls = [asyncio.create_task(reason_of(pool, AMPLE_SECONDS)) for _ in range(9)]
        done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 4:
            more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        assert {call.result() for call in done} == {"RANKER_OVERLOADED"}
        assert SHED.labels("full")._value.get() == full + 4
        await until(lambda: _true(worker.calls == 2))
        assert len(waiting) == 5
        release.set()
        assert await asyncio.gather(*waiting) == [""] * 5


async def test_nobody_waits_in_line_past_the_deadline() -> None:
    async with spread(hangs, in_flight_limit=1) as (pool, _):
        late = SHED.labels("late")._value.get()
        first = asyncio.create_task(reason_of(pool, 0.7))
        await asyncio.sleep(0)
        assert await reason_of(pool, 0.05) == "RANKER_OVERLOADED"
        assert SHED.labels("late")._value.get() == late + 1
        assert not first.done()
        assert await first == "RANKER_TIMEOUT"


async def test_no_time_and_no_worker() -> None:
    async with spread(ranks) as (pool, (worker,)):
        assert await reason_of(pool, 0.0) == "RANKER_TIMEOUT"
        assert worker.calls == 0
    async with spread() as (pool, _):
        assert await reason_of(pool, AMPLE_SECONDS) == "RANKER_UNAVAILABLE"


def test_what_a_sound_slate_is() -> None:
    request = asked(count=3)
    assert is_sound(request, slate(request))

    def spoilt(**served: Any) -> bool:
        answer = slate(request)
        for name, value in served.items():
            if isinstance(value, bytes):
                setattr(answer.served, name, value)
            else:
                del getattr(answer.served, name)[:]
                getattr(answer.served, name).extend(value)
        return is_sound(request, answer)

    assert spoilt(features=b"")
    assert not spoilt(features=bytes(17))
    assert not spoilt(candidate_indexes=[2, 1])
    assert not spoilt(candidate_indexes=[2, 1, 1])
    assert not spoilt(candidate_indexes=[2, 1, 3])
    assert not spoilt(candidate_indexes=[2, 1, -1])
    assert not spoilt(candidate_indexes=[0, 1, 2])
    assert not spoilt(item_types=["t"])
    assert not spoilt(tiers=[])
    assert not is_sound(request, slate(asked("another")))
