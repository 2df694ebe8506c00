from service.auth.limits import CALLERS_KEPT, Limiter, Rate


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_granted_and_then_the_steady_rate() -> None:
    clock = Clock()
    limiter = Limiter(Rate(per_second=2.0, burst=3.0), clock)
    assert [limiter.wait_seconds("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert limiter.wait_seconds("b") == 0.0  # everyone has a bucket of their own
    clock.now += 0.25
    assert limiter.wait_seconds("a") == 0.25  # a refused request costs nothing
    clock.now += 0.25
    assert limiter.wait_seconds("a") == 0.0
    clock.now += 3600.0
    assert [limiter.wait_seconds("a") == 0.0 for _ in range(4)] == [True, True, True, False]  # no more than the burst


def test_the_memory_of_callers_is_bounded() -> None:
    limiter = Limiter(Rate(per_second=1.0, burst=1.0), Clock())
    for caller in range(CALLERS_KEPT + 50):
        limiter.wait_seconds(str(caller))
    assert len(limiter._callers) == CALLERS_KEPT
