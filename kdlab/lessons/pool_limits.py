"""How often somebody may ask: a bucket of requests for each, filled again with time."""

import math
import time
from collections.abc import Callable

MOST = 4096  # whom it remembers


class Rates:
    """`burst` requests at once, and `each_second` more as time goes by, for each who asks.

    >>> rates = Rates(burst=2, each_second=1, clock=iter([0, 0, 0, 1]).__next__)
    >>> [rates.allow("a") for _ in range(4)]
    [True, True, False, True]
    """

    def __init__(
        self, burst: float, each_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.burst, self.each_second, self.clock = burst, each_second, clock
        self._left: dict[str, tuple[float, float]] = {}  # how many are left, and when that was

    @property
    def remembered(self) -> int:
        """How many of those who asked it remembers: `MOST`, or fewer."""
        return len(self._left)

    def allow(self, who: str) -> bool:
        """Whether they may; then it is counted."""
        return self.charge(who, 1, least=1)

    def charge(self, who: str, cost: float, least: float = -math.inf) -> bool:
        """Take `cost` where `least` is left, if need be into debt; whether it was taken."""
        now = self.clock()
        if self.remembered >= MOST:
            self._forget(now)
        left = self._now(who, now)
        self._left[who] = (left - cost * (left >= least), now)
        return left >= least

    def _now(self, who, now):
        left, then = self._left.get(who, (self.burst, now))
        return min(self.burst, left + (now - then) * self.each_second)

    def _forget(self, now):
        """Those whose bucket is full again, who lose nothing; the longest quiet where none is."""
        self._left = {w: x for w, x in self._left.items() if self._now(w, now) < self.burst}
        if self.remembered >= MOST:
            quiet = sorted(self._left, key=lambda who: self._left[who][1])
            for who in quiet[: MOST // 2]:
                del self._left[who]
