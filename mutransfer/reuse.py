"""How many of a study's trials are known before it runs: the plan followed as far as known results answer it."""

from collections.abc import Callable, Collection, Mapping

from mutransfer.base import Value
from mutransfer.judge import CurveData, curve_of, recorded_lr
from mutransfer.plan import CurveKey, Phase, Progress, TrialRequest, requests
from mutransfer.spec import StudySpec
from mutransfer.trial import Environment, Observation, trial_key, trial_spec


class KnownResult(Value):
    """What of a stored result the plan needs. `loss_nats` is None for a diverged run."""

    loss_nats: float | None
    device_seconds: float


class Reuse(Value):
    """`trials_known` of `trials_total` need not run; the total is the estimate unless every trial is known.

    `basis` is the study whose data and code the keys were computed with. `note` says why nothing can be told.
    """

    trials_known: int = 0
    trials_total: int
    device_seconds_saved: float = 0.0
    basis: str | None = None
    note: str = ""


Lookup = Callable[[Collection[str]], Mapping[str, KnownResult]]


class _Walk:
    """A study's plan, walked without running anything. Curves stop at their first unknown trial."""

    def __init__(self, spec: StudySpec, environment: Environment, lookup: Lookup) -> None:
        self._spec = spec
        self._environment = environment
        self._lookup = lookup
        self._arms = {arm.name: arm for arm in spec.arms}
        self._observations: dict[CurveKey, list[Observation]] = {}
        self._recorded: dict[str, float | None] = {}
        self.pending: set[TrialRequest] = set()
        self.known: dict[TrialRequest, str] = {}
        self.results: dict[str, KnownResult] = {}

    def run(self) -> None:
        """All training phases but the tune phase."""
        for phase in (Phase.SEARCH, Phase.TRANSFER, Phase.VERIFY):
            while self._round(phase):
                pass
            if phase is Phase.SEARCH:
                self._recorded = {arm: self._record(arm) for arm in self._arms}

    def _round(self, phase: Phase) -> bool:
        progress = Progress(
            observations=self._observations, recorded=self._recorded, pending=frozenset(self.pending)
        )  # fmt: skip
        keys = {request: self._key(request) for request in requests(self._spec, phase, progress)}
        found = self._lookup(keys.values())
        for request, key in keys.items():
            if key in found:
                point = Observation(
                    lr_octaves=request.lr_octaves, seed=request.seed, loss_nats=found[key].loss_nats
                )  # fmt: skip
                self._observations.setdefault((request.arm, request.axis_value), []).append(point)
                self.known[request] = key
            else:
                self.pending.add(request)
        self.results |= found
        return bool(found)

    def _key(self, request: TrialRequest) -> str:
        arm = self._arms[request.arm]
        trial = trial_spec(self._spec, arm, request.axis_value, request.lr_octaves, request.seed)
        return trial_key(trial, self._environment)

    def _record(self, arm: str) -> float | None:
        proxy = self._spec.axis.proxy[-1]
        if any(request.arm == arm for request in self.pending):
            return None  # its search has to run first
        data = CurveData(arm=arm, axis_value=proxy, observations=tuple(self._observations.get((arm, proxy), ())))
        return recorded_lr(curve_of(self._spec, data, recorded=None))


def known_trials(spec: StudySpec, environment: Environment, lookup: Lookup, *, expected: int, basis: str) -> Reuse:
    """Walk the plan of `spec` over the results that `lookup` finds by key; `expected` trials were estimated."""
    walk = _Walk(spec, environment, lookup)
    walk.run()
    asked = len(walk.known) + len(walk.pending)
    return Reuse(
        trials_known=len(walk.known),
        trials_total=max(asked, expected) if walk.pending else asked,
        device_seconds_saved=sum(result.device_seconds for result in walk.results.values()),
        basis=basis,
    )
