"""Whatever accounts do and devices send, the emulator decides as the oracle says: see ``oracle_machine``."""

import pytest
from hypothesis import settings

from tests.property.oracle_machine import EXAMPLES, ROUNDS, hold


@pytest.mark.parametrize("number", range(ROUNDS))
def test_emulator_does_what_the_oracle_and_the_model_say(number: int) -> None:
    """With HYPOTHESIS_PROFILE=explore new rounds each time, and more of them."""
    given = settings()
    if given.derandomize:
        hold(number)
        return
    for _ in range(given.max_examples // EXAMPLES):
        hold(None)
