"""A registry whose clock the test sets, and two accounts of one Region in it."""

import pytest

from devicesim.emulator.registry import Partition, Registry
from tests.control_support import REGION, A, B, Clock, make_registry


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(clock: Clock) -> Registry:
    return make_registry(clock)


@pytest.fixture
def a(registry: Registry) -> Partition:
    return registry.partition(A, REGION)


@pytest.fixture
def b(registry: Registry) -> Partition:
    return registry.partition(B, REGION)
