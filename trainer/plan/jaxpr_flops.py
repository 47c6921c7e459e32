"""FLOPs of a traced step's matrix products, including recomputation for the backward pass."""

import math
from collections.abc import Iterator
from typing import Any

# Number of matrix products of cuDNN's attention, each of queries × keys × width. The backward
# kernel recomputes the first product of the forward kernel.
_CUDNN = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 5}


def executed_flops(jaxpr: Any) -> int:
    """Return the FLOPs of a traced function's matrix products, over all devices.

    Unlike in the compiler's count, every iteration of a loop counts. A Pallas kernel counts as its
    author declares, or else as its grid size times its body.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.ones((2, 3))
    >>> executed_flops(jax.make_jaxpr(lambda x: jax.lax.map(lambda row: row @ x.T, x))(x))
    24
    """
    return sum(_of_equation(equation) for equation in _open(jaxpr).eqns)


def kernel_flops(jaxpr: Any) -> int:
    """Return the part of `executed_flops` in kernels, which the compiler does not count."""
    return sum(
        _of_equation(equation)
        if equation.primitive.name == "pallas_call" or equation.primitive.name in _CUDNN
        else sum(kernel_flops(inside) for inside in _jaxprs(equation.params))
        * _repeats(equation.primitive.name, equation.params)
        for equation in _open(jaxpr).eqns
    )


def _of_equation(equation: Any) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        sizes = equation.invars[0].aval.shape
        products = math.prod(sizes[axis] for axis in contracted)
        return 2 * products * math.prod(equation.outvars[0].aval.shape)
    if name in _CUDNN:
        (b, queries, heads, width), keys = (variable.aval.shape for variable in equation.invars[:2])
        return _CUDNN[name] * 2 * b * heads * queries * keys[1] * width
    if name == "pallas_call" and (declared := parameters["cost_estimate"]) is not None:
        return int(declared.flops)
    inside = [executed_flops(jaxpr) for jaxpr in _jaxprs(parameters)]
    if name == "cond":
        return max(inside)
    return sum(inside) * _repeats(name, parameters)


def _repeats(name: str, parameters: dict[str, Any]) -> int:
    """Return how many times an equation's inner function runs, over all devices."""
    if name == "scan":
        return parameters["length"]
    if name == "shard_map":
        return parameters["mesh"].size
    if name == "pallas_call":
        return math.prod(parameters["grid_mapping"].grid)
    return 1


def _jaxprs(parameters: dict[str, Any]) -> Iterator[Any]:
    for value in parameters.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if hasattr(_open(part), "eqns"):
                yield part


def _open(jaxpr: Any) -> Any:
    return getattr(jaxpr, "jaxpr", jaxpr)
