"""A lease: who does what only one may do.

Clocks decide only how soon another takes over. That two never do it at once is held by the epoch: whoever writes under the lease does so
in a transaction that touches the lease's document at the epoch it holds, and that fails when another has taken it.

A holder that is killed within such a transaction leaves it open, and with it a lock on the lease's document and on all it wrote; MongoDB
itself lets go of that only after a minute. So the lease names the session of its holder's transactions, and whoever comes when its time is
over breaks off what that session left open. A holder that was only stopped finds its transaction gone, begins it again, and learns from
the epoch that it no longer holds the lease.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from runtime.errors import Aborted, DuplicateKey
from runtime.mongo import Document, Mongo

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Lease:
    """A claim to a name, renewed while it is held."""

    mongo: Mongo
    name: str
    holder: str
    """Who claims it; unique for each process."""
    seconds: float
    clock: Callable[[], datetime]
    epoch: int = 0
    """Grows with every change of holder; 0: not held by us."""
    session: Any = None
    """Of the transactions that are made under this lease, while it is held."""
    followed: bool = False
    """Whether somebody follows what is done under it (`follow`), as the last revision found."""
    _asks: bool = False

    async def claim(self) -> bool:
        """Takes the lease if it is free or ours, and renews it; says whether it is ours now.

        While another asks for it, it is neither renewed nor taken: whoever works under it finds so at the next claim, and lets go.
        """
        now = self.clock()
        until = now + timedelta(seconds=self.seconds)
        leases = self.mongo.collection("leases")
        not_asked = {"$or": [{"asked_until": {"$exists": False}}, {"asked_until": {"$lt": now}}, {"asked_by": self.holder}]}
        held: Document = {"until": until}
        if self._asks:
            held["asked_until"] = until
        if self.epoch:
            if await leases.update_one({"_id": self.name, "epoch": self.epoch, **not_asked}, {"$set": held}):
                return True
            await self.release()
            return False
        await self._break_off_the_late(now)
        if self.session is None:
            self.session = await self.mongo.open_session()
        held |= {"holder": self.holder, "session": self.session.session_id}
        try:
            taken = await leases.find_one_and_update(
                {"_id": self.name, "until": {"$lt": now}, **not_asked},
                {"$set": held, "$inc": {"epoch": 1}, "$setOnInsert": {"revision": 0}},
                upsert=True,
            )
        except DuplicateKey:
            return False  # another holds it, or asks for it
        assert taken is not None
        self.epoch = int(taken["epoch"])
        return True

    async def ask(self) -> None:
        """Asks whoever holds the lease to let go, and others not to take it before us. Ends with `release`, or when we do not renew it."""
        self._asks = True
        asked = {"asked_by": self.holder, "asked_until": self.clock() + timedelta(seconds=4 * self.seconds)}
        past = self.clock() - timedelta(seconds=1)
        leases = self.mongo.collection("leases")
        await self._break_off_the_late(self.clock())
        await leases.update_one(
            {"_id": self.name}, {"$set": asked, "$setOnInsert": {"until": past, "holder": "", "epoch": 0, "revision": 0}}, upsert=True
        )

    async def release(self) -> None:
        """Lets go at once, so that another need not wait."""
        # Long past for every clock: another's may be behind ours.
        leases, past = self.mongo.collection("leases"), LONG_AGO
        if self.epoch:
            await leases.update_one({"_id": self.name, "epoch": self.epoch}, {"$set": {"until": past}, "$unset": {"session": ""}})
            self.epoch = 0
        if self._asks:
            self._asks = False
            await leases.update_one({"_id": self.name, "asked_by": self.holder}, {"$unset": {"asked_by": "", "asked_until": ""}})

    async def _break_off_the_late(self, now: datetime) -> None:
        """Breaks off what a holder left open whose time is over."""
        found = await self.mongo.collection("leases").find_one({"_id": self.name, "until": {"$lt": now}, "session": {"$exists": True}})
        if found is not None and found["epoch"] != self.epoch:
            await self.mongo.break_off(found["session"])

    async def next_revision(self, session: Any) -> int:
        """Within a transaction: the number of this change under the lease, one more than the last.

        Raises:
            Aborted: another holds the lease; nothing of the transaction stays.
        """
        found: Document | None = await self.mongo.collection("leases").find_one_and_update(
            {"_id": self.name, "epoch": self.epoch}, {"$inc": {"revision": 1}}, session=session
        )
        if found is None:
            self.epoch = 0
            raise Aborted(f"another process holds the lease {self.name}", reason="LEASE_LOST")
        self.followed = "followed_from" in found
        return int(found["revision"])


async def follow(mongo: Mongo, name: str) -> int:
    """Has whoever works under the lease told so with every further revision; returns the last revision that may not have been told.

    Every transaction under the lease changes the lease's document first. So one that is under way has committed when this returns, or
    meets this change, begins anew, and is told. Following twice changes nothing: it is followed since the first time.
    """
    lacking = {"until": LONG_AGO, "holder": "", "epoch": 0, "revision": 0}
    there = {"$set": {field: {"$ifNull": [f"${field}", value]} for field, value in lacking.items()}}
    since = {"$set": {"followed_from": {"$ifNull": ["$followed_from", "$revision"]}}}
    known = await followed_from(mongo, name)
    if known is not None:
        return known
    found = await mongo.collection("leases").find_one_and_update({"_id": name}, [there, since], upsert=True)
    assert found is not None
    return int(found["followed_from"])


async def followed_from(mongo: Mongo, name: str, session: Any = None) -> int | None:
    """The last revision that may not have been told that the lease is followed; None: it is not."""
    found = await mongo.collection("leases").find_one({"_id": name, "followed_from": {"$exists": True}}, session=session)
    return None if found is None else int(found["followed_from"])


async def unfollow(mongo: Mongo, name: str) -> None:
    """Nobody follows any more."""
    await mongo.collection("leases").update_one({"_id": name, "followed_from": {"$exists": True}}, {"$unset": {"followed_from": ""}})
