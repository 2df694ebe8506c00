"""The parameters of every built-in architecture, at any width, without building it.

Names, roles and shapes follow from the spec alone, so the controller can print a recipe for a width that nobody has
trained, and torch is not needed to know it. `models/` builds modules with exactly these parameters; a test holds the
two together.
"""

from collections.abc import Iterator

from mutransfer.errors import ScalingError
from mutransfer.roles import ParameterInfo, ParameterRole, parameter_info
from mutransfer.spec import ModelSpec


def architecture(model: ModelSpec, *, width: int, depth: int, vocab: int) -> tuple[ParameterInfo, ...]:
    """All parameters of a built-in `model` at `width` and `depth`, in module order.

    Raises ScalingError for a family of the user's own: only building it tells its parameters.
    """
    if model.family == "nanogpt":
        return tuple(_nanogpt(model, width, depth, vocab))
    if model.family == "llama":
        return tuple(_llama(model, width, depth, vocab))
    if model.family == "mlp":
        return tuple(_mlp(model, width, depth, vocab))
    raise ScalingError(f"the parameters of {model.family} are known only after building it")


def _nanogpt(model: ModelSpec, width: int, depth: int, vocab: int) -> Iterator[ParameterInfo]:
    inner = model.mlp_ratio * width
    yield parameter_info("embedding.weight", ParameterRole.EMBEDDING, (vocab, width))
    yield parameter_info("positions.weight", ParameterRole.POSITION, (model.context, width))
    for block in range(depth):
        prefix = f"blocks.{block}"
        if model.norm_gain:
            yield parameter_info(f"{prefix}.attention_norm.gain", ParameterRole.VECTOR, (width,))
        for side in ("query", "key", "value"):
            yield parameter_info(f"{prefix}.attention.{side}.weight", ParameterRole.HIDDEN, (width, width))
        yield parameter_info(f"{prefix}.attention.out.weight", ParameterRole.RESIDUAL_OUT, (width, width))
        if model.norm_gain:
            yield parameter_info(f"{prefix}.mlp_norm.gain", ParameterRole.VECTOR, (width,))
        yield parameter_info(f"{prefix}.mlp.up.weight", ParameterRole.HIDDEN, (inner, width))
        yield parameter_info(f"{prefix}.mlp.down.weight", ParameterRole.RESIDUAL_OUT, (width, inner))
    if model.norm_gain:
        yield parameter_info("final_norm.gain", ParameterRole.VECTOR, (width,))
    yield parameter_info("readout.weight", ParameterRole.READOUT, (vocab, width))


def _llama(model: ModelSpec, width: int, depth: int, vocab: int) -> Iterator[ParameterInfo]:
    inner, shared = swiglu_inner(model, width), width // model.queries_per_kv
    yield parameter_info("embedding.weight", ParameterRole.EMBEDDING, (vocab, width))
    for block in range(depth):
        prefix = f"blocks.{block}"
        if model.norm_gain:
            yield parameter_info(f"{prefix}.attention_norm.gain", ParameterRole.VECTOR, (width,))
        for side, rows in (("query", width), ("key", shared), ("value", shared)):
            yield parameter_info(f"{prefix}.attention.{side}.weight", ParameterRole.HIDDEN, (rows, width))
        yield parameter_info(f"{prefix}.attention.out.weight", ParameterRole.RESIDUAL_OUT, (width, width))
        if model.norm_gain:
            yield parameter_info(f"{prefix}.mlp_norm.gain", ParameterRole.VECTOR, (width,))
        for side in ("gate", "up"):
            yield parameter_info(f"{prefix}.mlp.{side}.weight", ParameterRole.HIDDEN, (inner, width))
        yield parameter_info(f"{prefix}.mlp.down.weight", ParameterRole.RESIDUAL_OUT, (width, inner))
    if model.norm_gain:
        yield parameter_info("final_norm.gain", ParameterRole.VECTOR, (width,))
    yield parameter_info("readout.weight", ParameterRole.READOUT, (vocab, width))


def swiglu_inner(model: ModelSpec, width: int) -> int:
    """Inner size of Llama's MLP: two thirds of `mlp_ratio * width`, since it has three matrices instead of two.

    The ratio 2/3 * `mlp_ratio` is rounded up to a sixteenth, so that the inner size is proportional to width at all
    multiples of 16. Rounding the size itself to a multiple, as Llama does, changes the shape along a ladder of small
    widths. `mlp_ratio` 4 gives 43/16: 11,008 at width 4,096, which is Llama-2-7B's.
    """
    sixteenths = -(-32 * model.mlp_ratio // 3)
    return sixteenths * width // 16


def _mlp(model: ModelSpec, width: int, depth: int, vocab: int) -> Iterator[ParameterInfo]:
    # One table a context position, stored as one lookup of `context * vocab` rows.
    yield parameter_info("embedding.weight", ParameterRole.EMBEDDING, (model.context * vocab, width))
    for layer in range(depth):
        yield parameter_info(f"layers.{layer}.weight", ParameterRole.HIDDEN, (width, width))
    yield parameter_info("readout.weight", ParameterRole.READOUT, (vocab, width))


def parameter_count(infos: tuple[ParameterInfo, ...]) -> int:
    """Number of scalars in all parameters."""
    return sum(info.size for info in infos)


def at_width(
    small: tuple[ParameterInfo, ...], large: tuple[ParameterInfo, ...], widths: tuple[int, int], width: int
) -> tuple[ParameterInfo, ...]:
    """Parameters at `width` of a family known only at two widths: every side is affine in width.

    Raises ScalingError when the two models differ in more than their sides, or a side would not be whole.
    """
    if [i.name for i in small] != [i.name for i in large]:
        raise ScalingError("the models at the two widths do not have the same parameters")
    low, high = widths
    result = []
    for a, b in zip(small, large, strict=True):
        shape = []
        for side_a, side_b in zip(a.shape, b.shape, strict=True):
            grown = side_a * (high - low) + (side_b - side_a) * (width - low)
            if grown % (high - low):
                raise ScalingError(
                    f"{a.name}: sides {side_a} and {side_b} at widths {low} and {high} tell no whole "
                    f"side at width {width}"
                )
            shape.append(grown // (high - low))
        result.append(parameter_info(a.name, a.role, shape))
    return tuple(result)
