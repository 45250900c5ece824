"""Real stacks: shared ones where tests leave them as they found them, and one of its own for each fault."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.e2e.stack import Client, Stack, running


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack without a model that all tests share. Whoever counts brings ids of its own, or a period."""
    with running(tmp_path_factory.mktemp("stack")) as running_stack:
        yield running_stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    """A client of the shared stack."""
    async with Client(stack.address) as opened:
        yield opened


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack for one test alone."""
    with running(tmp_path) as running_stack:
        yield running_stack
