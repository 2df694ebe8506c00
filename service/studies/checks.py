"""What the controller alone can tell of a study: whether its data may be read here, and its model may be run."""

from collections.abc import Iterator
from pathlib import Path

from mutransfer.errors import Problem, ScalingError, SpecError
from mutransfer.parametrize import model_scaling
from mutransfer.plan import PlanEstimate, estimate
from mutransfer.plugins import refusal
from mutransfer.spec import DataSpec, StudySpec
from mutransfer.trial import trial_spec
from service.settings import Settings

# Vocabularies before the data has been seen; a tokenizer file's is guessed, the estimate hardly depends on it.
VOCABULARIES = {"bytes": 256, "printable": 98}
FILE_VOCABULARY = 32_768


def check_study(spec: StudySpec, settings: Settings) -> None:
    """Raises SpecError for data outside the roots or missing, and for a model whose package is not allowed."""
    problems = [
        *_path_problems(spec.data, settings),
        *_family_problems(spec, settings),
        *_optimizer_problems(spec, settings),
        *_ladder_problems(spec),
    ]
    if problems:
        raise SpecError(problems)


def estimate_study(spec: StudySpec) -> PlanEstimate:
    """What the study may take. Raises SpecError where the numbers are beyond all measure."""
    try:
        return estimate(spec, vocab=VOCABULARIES.get(spec.data.tokenizer, FILE_VOCABULARY))
    except OverflowError:
        raise SpecError.at("train", "the horizon is beyond all measure: ask for fewer steps or tokens") from None


def _path_problems(data: DataSpec, settings: Settings) -> Iterator[Problem]:
    if data.path is not None:
        yield from _path_problem("data.source", data.path, settings, allow_folder=True)
    if data.tokenizer not in VOCABULARIES:
        yield from _path_problem("data.tokenizer", data.tokenizer, settings, allow_folder=False)


def _path_problem(field: str, given: str, settings: Settings, *, allow_folder: bool) -> Iterator[Problem]:
    path = Path(given)
    if not path.is_absolute():
        yield Problem(field=field, message=f"{given} is relative: give the absolute path on the service's machine")
        return
    try:
        real = path.resolve()
        inside = any(real.is_relative_to(root.resolve()) for root in settings.roots)
        exists = inside and (real.exists() if allow_folder else real.is_file())
    except (OSError, RuntimeError) as error:  # a name too long, a folder closed to us, a loop of links
        yield Problem(field=field, message=f"{given} cannot be read: {error}")
        return
    if not inside:
        # Said before looking: whether something exists outside the roots is nobody's business.
        roots = ", ".join(str(root) for root in settings.roots) or "none"
        message = f"{given} is outside the folders that studies may read ({roots}): see MUTRANSFER_DATA_ROOTS"
        yield Problem(field=field, message=message)
    elif not exists:
        yield Problem(field=field, message=f"{given} does not exist on the service's machine")


def _family_problems(spec: StudySpec, settings: Settings) -> Iterator[Problem]:
    if not spec.model.is_own:
        return
    module = spec.model.family.partition(":")[0]
    if not any(module == package or module.startswith(f"{package}.") for package in settings.model_packages):
        allowed = ", ".join(settings.model_packages) or "none"
        message = (
            f"models from {module} are not allowed here (allowed packages: {allowed}): see MUTRANSFER_MODEL_PACKAGES"
        )
        yield Problem(field="model.family", message=message)


def _optimizer_problems(spec: StudySpec, settings: Settings) -> Iterator[Problem]:
    for index, arm in enumerate(spec.arms):
        if arm.is_own and (why := refusal(str(arm.optimizer), settings.model_packages)):
            yield Problem(field=f"arms.{index}.optimizer", message=why)


def _ladder_problems(spec: StudySpec) -> Iterator[Problem]:
    """Arms whose rules do not reach every size: seen here, before any trial has failed. One block stands for all."""
    if spec.model.is_own:
        return
    vocab = VOCABULARIES.get(spec.data.tokenizer, FILE_VOCABULARY)
    widths = sorted({spec.size_at(value)[0] for value in spec.axis.values} | set(spec.audit_widths))
    for index, arm in enumerate(spec.arms):
        trial = trial_spec(spec, arm, spec.axis.proxy[0], 0.0, 0)
        shallow = trial.model.model_copy(update={"depth": 1})
        try:
            for width in widths:
                model_scaling(trial.model_copy(update={"width": width, "depth": 1, "model": shallow}), vocab=vocab)
        except ScalingError as error:
            yield Problem(field=f"arms.{index}.options", message=str(error))
