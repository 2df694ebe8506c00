"""The tune phase as the engine sees it: samples known so far, the next batch, and the arms that came out best."""

from collections.abc import Collection, Mapping, Sequence

from mutransfer.plan import CurveKey, TrialRequest
from mutransfer.spec import ArmSpec, StudySpec
from mutransfer.trial import Observation, TrialSpec
from mutransfer.tuning import SAMPLE_SEED, Sample, answered, best, label, parse_label, values_of, with_values

Observed = Mapping[CurveKey, Sequence[Observation]]
Missing = Mapping[CurveKey, Collection[tuple[float, int]]]


class Tuning:
    """The samples of every arm of one study. `planned` are the tune trials that the database knows, by label."""

    def __init__(self, spec: StudySpec, planned: Mapping[str, TrialSpec]) -> None:
        self._spec = spec
        self._arms = {arm.name: arm for arm in spec.arms}
        self._samples: dict[str, list[Sample]] = {arm.name: [] for arm in spec.arms}
        self._proposed: dict[str, tuple[Sample, ...]] = {}  # asked for, not known to be in the database yet
        for name, trial in planned.items():
            if place := parse_label(name):
                sample = Sample(index=place[1], lr_octaves=trial.lr_octaves, values=values_of(spec, trial))
                self._samples[place[0]].append(sample)
        for samples in self._samples.values():
            samples.sort(key=lambda sample: sample.index)

    @property
    def _size(self) -> int:
        return self._spec.axis.proxy[-1]

    def arm(self, name: str) -> ArmSpec:
        """The arm of a sample, with its values."""
        place = parse_label(name)
        if place is None:
            return self._arms[name]
        known = [*self._samples[place[0]], *self._proposed.get(place[0], ())]
        return with_values(self._arms[place[0]], known[place[1]].values)

    def requests(self, observations: Observed, unavailable: Missing) -> tuple[TrialRequest, ...]:
        """The next batch of each arm whose last batch has ended; empty with nothing pending ends the phase.

        A batch stays proposed until `planned` says that the database has it.
        """
        from workers.sampler import propose

        found = []
        for arm in self._arms:
            history = self._history(arm, observations)
            if self._is_waiting(arm, history, unavailable):
                continue
            count = min(self._spec.search.batch, self._spec.search.samples - len(history))
            if count > 0 and arm not in self._proposed:
                self._proposed[arm] = propose(self._spec.search, history, arm=arm, count=count)
            new = self._proposed.get(arm, ())
            found += [TrialRequest(label(arm, s.index), self._size, s.lr_octaves, SAMPLE_SEED) for s in new]
        return tuple(found)

    def planned(self) -> None:
        """The database has all that was proposed."""
        for arm, new in self._proposed.items():
            self._samples[arm] += new
        self._proposed = {}

    def _history(self, arm: str, observations: Observed) -> list[Sample]:
        return [answered(s, observations.get((label(arm, s.index), self._size), ())) for s in self._samples[arm]]

    def _is_waiting(self, arm: str, history: Sequence[Sample], unavailable: Missing) -> bool:
        return any(s.loss_nats is None and (label(arm, s.index), self._size) not in unavailable for s in history)

    def best_values(self, observations: Observed) -> dict[str, dict[str, float]]:
        """The values of the best sample of each arm; an arm whose samples all diverged or failed keeps its own."""
        found = {arm: best(self._history(arm, observations)) for arm in self._arms}
        return {
            arm: {name.value: value for name, value in sample.values.items()}
            for arm, sample in found.items()
            if sample is not None
        }
