"""How often somebody may ask a pool."""

from kdlab.lessons.pool_limits import Rates


def test_a_bucket_fills_with_time_and_those_who_are_quiet_are_forgotten():
    now = [0.0]
    rates = Rates(2, 1, lambda: now[0])
    assert [rates.allow("a") for _ in range(3)] == [True, True, False]
    assert rates.allow("b")
    now[0] = 1.0
    assert [rates.allow("a") for _ in range(2)] == [True, False]
    for i in range(20_000):
        rates.allow(f"{i}")
    assert rates.remembered <= 4096
