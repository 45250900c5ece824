"""What a server asks a ranking worker: the caller's request as it is, and what the server decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rankloop.v1.ranking_pb2 import RankRequest
from rankloop.worker.v1 import worker_pb2

_REQUEST_TAG: Final = bytes([worker_pb2.RankRequest.REQUEST_FIELD_NUMBER << 3 | 2])


@dataclass(frozen=True, slots=True)
class Asked:
    """A `worker.v1.RankRequest` that is put together on the wire: a message within a message would copy every candidate first."""

    request: RankRequest
    decided: worker_pb2.RankRequest
    """Everything but the request."""

    @property
    def ranking_id(self) -> str:
        """The id the slate shall have."""
        return self.decided.ranking_id

    def SerializeToString(self) -> bytes:  # noqa: N802 - as messages have it
        """The message; its parts may come in any order."""
        request = self.request.SerializeToString()
        return b"".join((_REQUEST_TAG, _varint(len(request)), request, self.decided.SerializeToString()))


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
