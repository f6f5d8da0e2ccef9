"""Turns: so many a second, evenly spaced, for what shares a quota with somebody's production."""

import trio


class Turns:
    """Callers wait for their turn, those with another key in a queue of their own."""

    def __init__(self, per_second: float | None) -> None:
        """``None``: nobody waits."""
        self._interval = 0.0 if per_second is None else 1 / per_second
        self._free: dict[str, float] = {}
        """When the next turn is, by key."""

    async def take(self, key: str = "") -> None:
        """Wait for a turn."""
        if not self._interval:
            return
        now = trio.current_time()
        turn = max(now, self._free.get(key, now))
        self._free[key] = turn + self._interval
        await trio.sleep_until(turn)
