"""A recipe as text: Python that builds the optimizer, YAML, Markdown."""

from collections.abc import Iterator, Mapping, Sequence
import json
from pprint import pformat
import textwrap
from typing import Any

from mutransfer.algorithms import Algorithm
from mutransfer.recipe import Recipe, RecipeGroup

_SNIPPET = '''"""{title}

{verdict}
{trust}
{conditions}

{curvature}`build_optimizer(model)` sets peak learning rates, which the schedule multiplies, and weight decay as
torch wants it (multiplied by the LR). The tables below are initial standard deviations, weights in
the gradient norm that is clipped, and multipliers of the forward pass.
"""

{imports}

GROUPS = {groups}

INIT_STD = {init_std}

CLIP_WEIGHT = {clip_weight}

FORWARD = {forward}


def build_optimizer(model):
    """The optimizer of this recipe over `model`, a torch.nn.Module with exactly the parameters named above."""
    parameters = dict(model.named_parameters())
    named = [name for group in GROUPS for name in group["names"]]
    if sorted(named) != sorted(parameters):
        raise ValueError(f"the recipe and the model differ in parameters: {{sorted(set(named) ^ set(parameters))}}")
    groups = [{{"params": [parameters[name] for name in group["names"]], **group}} for group in GROUPS]
    {build}
'''


_CURVATURE = """Sophia needs curvature besides gradients: before a step at which `optimizer.curvature_due` is true, call
`optimizer.update_curvature(...)` (mutransfer's optimizers/curvature.py does); without it the step is sign descent.

"""


def snippet(recipe: Recipe) -> str:
    """Python source whose `build_optimizer(model)` builds the groups that the trainer would build at this size.

    Needs torch, and mutransfer's `optimizers` where torch has no such optimizer (Muon, SGD with decoupled decay).
    """
    groups = optimizer_groups(recipe)
    imports, build = _construction(groups)
    title = f"{recipe.arm} at width {recipe.width}, depth {recipe.depth}: study {recipe.study.name}, {recipe.study.id}."
    return _SNIPPET.format(
        title=_prose(title),
        verdict=_prose(verdict_line(recipe)),
        trust=_prose(trust_line(recipe)),
        curvature=_CURVATURE if any(g["algorithm"] == Algorithm.SOPHIA.value for g in groups) else "",
        conditions=_prose(f"Conditions: {conditions_line(recipe)}."),
        imports=imports,
        groups=pformat(groups, width=116, sort_dicts=False),
        init_std=_by_name(recipe, "init_std"),
        clip_weight=_by_name(recipe, "clip_weight"),
        forward=pformat(recipe.forward.model_dump(), width=116, sort_dicts=False),
        build=build,
    )


def _prose(text: str) -> str:
    """Wrapped, and escaped: a data path or an arm's name must not end the docstring it stands in."""
    wrapped = "\n".join(textwrap.wrap(text, width=112))
    return wrapped.replace("\\", "\\\\").replace('"', '\\"')


def optimizer_groups(recipe: Recipe) -> list[dict[str, Any]]:
    """torch groups without `params`: parameters with equal settings together, in order of first appearance."""
    row_of = {name: row for row in recipe.groups for name in row.names}
    groups: dict[str, dict[str, Any]] = {}
    for name in recipe.parameter_names:
        settings = _settings(row_of[name])
        group = groups.setdefault(json.dumps(settings), {"names": [], **settings})
        group["names"].append(name)
    return list(groups.values())


def _settings(row: RecipeGroup) -> dict[str, Any]:
    # A recipe that came as JSON has lists where torch's groups have tuples.
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in row.options.items()}
    settings = {"algorithm": row.algorithm.value, "lr": row.lr, "weight_decay": row.torch_weight_decay, **options}
    if row.algorithm not in (Algorithm.SGD, Algorithm.EXTERNAL):
        settings["eps"] = row.eps
    if row.norm:
        settings["norm"] = row.norm
    return settings


#: Import line and constructor of each algorithm.
_CLASSES = {
    Algorithm.ADAMW: ("torch", "torch.optim.AdamW({}, fused=True)"),
    Algorithm.SGD: ("torch", "torch.optim.SGD({}, fused=True)"),
    Algorithm.ADOPT: ("from optimizers.adopt import ADOPT", "ADOPT({})"),
    Algorithm.LAMB: ("from optimizers.lamb import LAMB", "LAMB({})"),
    Algorithm.SOPHIA: ("from optimizers.sophia import Sophia", "Sophia({})"),
    Algorithm.SHAMPOO: ("from optimizers.shampoo import Shampoo", "Shampoo({})"),
    Algorithm.SOAP: ("from optimizers.soap import SOAP", "SOAP({})"),
    Algorithm.MUON: ("from optimizers.muon import Muon", "Muon({})"),
    Algorithm.EXTERNAL: ("from optimizers.external import build_external", "build_external({})"),
}
_NORMALISED = "from optimizers.spectral import SpectrallyNormalised"


def _construction(groups: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The imports, and the last lines of build_optimizer."""
    classes = dict(_CLASSES)
    if any(group["weight_decay"] for group in groups):
        # torch's SGD decays through the gradient; the study's decay is on the weights.
        classes[Algorithm.SGD] = ("from optimizers.sgd import SGD", "SGD({}, fused=True)")
    children = list(dict.fromkeys((Algorithm(group["algorithm"]), "norm" in group) for group in groups))
    needed = {classes[algorithm][0] for algorithm, _ in children}
    needed |= {_NORMALISED} if any(normalised for _, normalised in children) else set()
    needed |= {"from optimizers.composite import Composite"} if len(children) > 1 else set()
    torch_import = ["import torch"] if "torch" in needed else []
    ours = sorted(needed - {"torch"})
    imports = "\n".join([*torch_import, *([""] if torch_import and ours else []), *ours])
    if len(children) == 1:
        return imports, "return " + _child(classes, *children[0], "groups")
    parts = [_child(classes, a, normalised, _members(a, normalised, children)) for a, normalised in children]
    return imports, "return Composite([\n        " + ",\n        ".join(parts) + ",\n    ])"


def _child(
    classes: Mapping[Algorithm, tuple[str, str]], algorithm: Algorithm, normalised: bool, groups: str
) -> str:  # fmt: skip
    built = classes[algorithm][1].format(groups)
    return f"SpectrallyNormalised({built})" if normalised and algorithm is not Algorithm.EXTERNAL else built


def _members(algorithm: Algorithm, normalised: bool, children: Sequence[tuple[Algorithm, bool]]) -> str:
    condition = f'group["algorithm"] == "{algorithm.value}"'
    if (algorithm, not normalised) in children:
        condition += ' and "norm" in group' if normalised else ' and "norm" not in group'
    return f"[group for group in groups if {condition}]"


def _by_name(recipe: Recipe, field: str) -> str:
    values = {name: getattr(row, field) for row in recipe.groups for name in row.names}
    return pformat({name: values[name] for name in recipe.parameter_names}, width=116, sort_dicts=False)


# --- sentences -------------------------------------------------------------------------------------------------------


def verdict_line(recipe: Recipe) -> str:
    """The verdict of the study on this arm, with its reasons."""
    return f"Verdict: {recipe.outcome.value}: {'; '.join(recipe.reasons)}."


def trust_line(recipe: Recipe) -> str:
    """The base learning rate with its interval, where it was found, and whether this size lies beyond the study."""
    interval = recipe.base_lr_octaves
    low, high = ("?" if bound is None else f"{2.0**bound:.3g}" for bound in (interval.low, interval.high))
    line = f"Base LR {recipe.base_lr:.4g} [{low}, {high}], recorded at {recipe.recorded_at}"
    if not recipe.extrapolated:
        return f"{line}, {'verified' if recipe.transfers else 'measured'} to {recipe.verified_to}."
    return f"{line}. EXTRAPOLATED: {'; '.join(recipe.extrapolation)}."


def conditions_line(recipe: Recipe) -> str:
    """What the rate was measured under."""
    c = recipe.conditions
    clip = "no clipping" if c.clip is None else f"clipped at {c.clip:g}"
    return (
        f"{c.steps} steps of {c.batch} x {c.context} tokens ({c.horizon}), {c.schedule} schedule with {c.warmup:.0%} "
        f"warm-up, {clip}, data {c.data} by {c.tokenizer} (vocabulary {c.vocab}), depth {c.depth}"
    )


# --- YAML and Markdown -----------------------------------------------------------------------------------------------


def recipe_yaml(recipe: Recipe) -> str:
    """The recipe as YAML: the JSON document, easier to read."""
    return "\n".join(_yaml(recipe.model_dump(mode="json"), 0)) + "\n"


def _yaml(value: Any, indent: int) -> Iterator[str]:
    pad = "  " * indent
    items = value.items() if isinstance(value, Mapping) else ((None, item) for item in value)
    for key, item in items:
        lead = f"{pad}-" if key is None else f"{pad}{json.dumps(key) if not key.isidentifier() else key}:"
        if isinstance(item, Mapping | list) and item and not _is_flat(item):
            yield lead
            yield from _yaml(item, indent + 1)
        else:
            yield f"{lead} {_flow(item)}"


def _is_flat(value: Any) -> bool:
    return isinstance(value, list) and all(not isinstance(item, Mapping | list) for item in value)


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, float):
        # YAML 1.1 reads 1e-08 as a string: it wants a point and a signed exponent.
        mantissa, exponent, power = repr(value).partition("e")
        return (mantissa if "." in mantissa else f"{mantissa}.0") + exponent + power
    return json.dumps(value, ensure_ascii=False)


_COLUMNS = (
    "role", "shape", "parameters", "algorithm", "multiplier", "LR", "eps", "weight decay", "clip weight", "init std",
    "forward", "rule",
)  # fmt: skip


def recipe_markdown(recipe: Recipe) -> str:
    """The recipe as a page: verdict first, then one row a group."""
    head = [
        f"# {recipe.arm} at width {recipe.width}, depth {recipe.depth}",
        verdict_line(recipe),
        trust_line(recipe),
        f"Conditions: {conditions_line(recipe)}. μP carries a learning rate over width, not over horizon or batch.",
    ]
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *(_cells(row) for row in recipe.groups)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    forward = ", ".join(f"{name} {value:.6g}" for name, value in recipe.forward.model_dump().items())
    rules = "\n".join(f"- {name}: {rule}" for name, rule in recipe.rules.items())
    study = f"Study {recipe.study.name} ({recipe.study.id})."
    return "\n\n".join([*head, table, f"Forward multipliers: {forward}.", rules, study]) + "\n"


def _cells(row: RecipeGroup) -> tuple[str, ...]:
    numbers = (row.lr_factor * row.lr_multiplier, row.lr, row.eps, row.weight_decay, row.clip_weight, row.init_std)
    return (
        row.role,
        "×".join(str(side) for side in row.shape),
        _names(row.names),
        row.algorithm.value,
        *(f"{number:.4g}" for number in numbers),
        f"{row.forward_multiplier:.4g}",
        row.source,
    )


def _names(names: Sequence[str]) -> str:
    return f"`{names[0]}`" if len(names) == 1 else f"`{names[0]}` and {len(names) - 1} more"
