import errno

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    OutOfDiskError,
    RaySystemError,
    RayTaskError,
)
from ray.tune import TuneError

from mutransfer.errors import LeaseLostError, RevisedError, ScalingError, SpecError, TransientError
from workers.allowance import Allowance
from workers.control import Stopped, StopReason
from workers.failures import Fault, delay_seconds, fault_of
from workers.tune_runner import _Supply, breakdown, fault_of_loss


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (SpecError.at("data", "missing"), Fault.SPEC),
        (ScalingError("no rule"), Fault.SPEC),
        (TransientError("away"), Fault.MACHINE),
        (OSError(errno.ENOSPC, "no space left on device"), Fault.MACHINE),
        (OSError(errno.EIO, "input/output error"), Fault.MACHINE),
        (FileNotFoundError(errno.ENOENT, "no such file"), Fault.TRIAL),
        (ValueError("poison"), Fault.TRIAL),
        (MemoryError(), Fault.TRIAL),
    ],
)
def test_whose_fault_an_exception_is(error: Exception, fault: Fault) -> None:
    assert fault_of(error) is fault


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (NodeDiedError("the node is gone"), Fault.MACHINE),
        (OutOfDiskError("full"), Fault.MACHINE),
        (ActorUnavailableError("Socket closed", actor_id=None), Fault.MACHINE),
        (ActorDiedError(None), Fault.TRIAL),
        (RayTaskError("train", "", OSError(errno.ENOSPC, "full")), Fault.MACHINE),
        (RayTaskError("train", "", ValueError("poison")), Fault.TRIAL),
        (None, Fault.TRIAL),
    ],
)
def test_whose_fault_the_loss_of_a_process_is(error: Exception | None, fault: Fault) -> None:
    assert fault_of_loss(error) is fault


def wrapped(within: Exception) -> TuneError:
    """As Tune wraps what is raised while it handles a report."""
    try:
        try:
            raise within
        except Exception:  # noqa: BLE001 - Tune's own words
            raise TuneError("Traceback …")  # noqa: B904
    except TuneError as error:
        return error


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (RaySystemError("the head is gone"), TransientError, "Ray broke down: System error: the head is gone"),
        (TuneError("Called step when all trials finished?"), TransientError, "Called step"),
        (wrapped(RaySystemError("the head is gone")), TransientError, "Ray broke down"),
        (wrapped(OSError(errno.ENOSPC, "no space left on device")), TransientError, "no space left"),
        (wrapped(LeaseLostError("epoch 1 is over")), LeaseLostError, "epoch 1"),
        (wrapped(KeyError("a bug of ours")), RuntimeError, "Traceback"),
    ],
)
def test_what_a_breakdown_of_ray_or_tune_is(error: Exception, kind: type[Exception], says: str) -> None:
    found = breakdown(error)
    assert type(found) is kind
    assert says in str(found)


def test_trials_are_drained_when_the_study_was_changed() -> None:
    class Engine:
        running = 0

        def next_job(self) -> None:
            raise RevisedError("it is at revision 2, not 1")

    class Room(Allowance):
        def take(self, running: int) -> bool:
            return True

    supply = object.__new__(_Supply)
    supply._engine, supply._limit, supply._allowance = Engine(), 1, object.__new__(Room)  # type: ignore[assignment]
    with pytest.raises(Stopped) as stopped:
        supply.suggest("t1")
    assert stopped.value.reason is StopReason.DRAIN


@pytest.mark.parametrize(("tries", "longest"), [(1, 1.0), (2, 2.0), (3, 4.0), (6, 32.0), (7, 60.0), (50, 60.0)])
def test_pauses_double_up_to_a_minute_and_are_shortened_by_up_to_a_half(tries: int, longest: float) -> None:
    assert delay_seconds(tries, draw=0.0) == longest
    assert delay_seconds(tries, draw=0.5) == 0.75 * longest
    assert delay_seconds(tries, draw=0.999) > 0.5 * longest
