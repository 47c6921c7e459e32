"""The speed of a training step, relative to matrix products and to PyTorch, in one run.

step_vs_matmul   a step's analytic FLOPs per second, without recomputation, over those of the
                 fastest square float32 product, JAX's or PyTorch's
                 (trainer/distributed/flops.py counts the FLOPs)
step_vs_pytorch  seconds of the same step in PyTorch (step_pytorch.py) over seconds of this
                 project's step, after a check that both yield the same loss and gradient

All are measured alternately on the same number of threads. The minimum of each counts, because
other load on the machine only makes them slower. The model has width 384, 6 layers and 816 tokens.

It writes its keys of benchmarks/results/trainer.json, and leaves those of other benchmarks
unchanged. It needs PyTorch, whose packages are 3 GB. `make benchmark` has an environment for it.

    .venv-bench/bin/python benchmarks/step.py
"""

import dataclasses
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import step_pytorch
import torch  # pyright: ignore[reportMissingImports]  # of the extra [bench], in .venv-bench
from jax import random
from jax.sharding import NamedSharding
from trainer_figures import CONFIG as WITH_COLOURS
from trainer_figures import THREADS, keep

from trainer.cli.main import start_with_malloc_tuned
from trainer.configs.config import InputConfig
from trainer.data.types import Batch
from trainer.distributed.flops import step_flops
from trainer.distributed.mesh import PER_CLIP, make_mesh
from trainer.method.cut_and_paste import splice_at_step
from trainer.method.models.video import gumbel_noise
from trainer.method.run_scalars import run_scalars
from trainer.method.train_step import GUMBEL, SPLICE, clip_keys, for_purpose, init_state, train_step

_STEPS = 1000  # total steps of the run that contains the timed step
_ROUNDS = 3
_N = 2048  # rows of the square products; larger ones were not faster

# The PyTorch program does not augment colours, which cost no counted FLOPs.
CONFIG = dataclasses.replace(
    WITH_COLOURS, input=InputConfig(jitter_probability=0.0, grey_probability=0.0)
)


def measure() -> tuple[dict[str, Any], dict[str, Any]]:
    """Compare the results of the two steps, then measure all alternately.

    Returns:
      The figures of `step_vs_matmul` and those of `step_vs_pytorch`.
    """
    torch.set_num_threads(THREADS)
    mesh, batch = make_mesh(CONFIG), random_batch()
    on_device = jax.device_put(batch, NamedSharding(mesh, PER_CLIP))
    state: Any = init_state(CONFIG, mesh)
    scalars = run_scalars(CONFIG, _STEPS)
    state = state.replace(params=_moved(state.params))
    theirs = step_pytorch.Step(CONFIG, jax.tree.map(np.asarray, state.params))
    same_batch = Batch(*(torch.tensor(array) for array in batch))
    splice, noise = _draws(state.step, on_device.index)

    def step() -> tuple[float, float]:
        nonlocal state
        state, figures = train_step(state, on_device, scalars, config=CONFIG, mesh=mesh)
        return float(figures["loss"]), float(figures["gradient_norm"])

    ours, same = step(), theirs(same_batch, splice, noise)
    differences = [abs(a - b) / abs(b) for a, b in zip(ours, same, strict=True)]
    if differences[0] > 1e-4 or differences[1] > 1e-3:
        raise SystemExit(f"step: error: loss and gradient norm are {ours}, PyTorch's {same}")

    by_each = (_jax_product(), _torch_product())
    for product in by_each:
        product()
    flops = step_flops(CONFIG)
    runs = (*by_each, step, lambda: theirs(same_batch, splice, {}))
    # The minimum of two runs counts, because the first also waits for memory that the other
    # framework's step has released.
    times = [[min(_seconds(run), _seconds(run)) for run in runs] for _ in range(_ROUNDS)]
    *products, seconds, their_seconds = map(min, zip(*times, strict=True))
    rates = [2 * _N**3 / product for product in products]
    vs_matmul = {
        "ratio": flops / seconds / max(rates),
        "step_seconds": seconds,
        "step_gflops": flops / 1e9,
        "matmul_gflops_per_second": {"jax": rates[0] / 1e9, "pytorch": rates[1] / 1e9},
        "seconds": [of_ours for *_, of_ours, _ in times],
        "batch": CONFIG.batch,
    }
    vs_pytorch = {
        "ratio": their_seconds / seconds,
        "step_seconds": their_seconds,
        "pytorch_vs_its_matmul": flops / their_seconds / rates[1],
        "pytorch_vs_matmul": flops / their_seconds / max(rates),
        "seconds": [of_theirs for *_, of_theirs in times],
        "loss": {"ours": ours[0], "pytorch": same[0]},
        "gradient_norm": {"ours": ours[1], "pytorch": same[1]},
        "batch": CONFIG.batch,
        "versions": {"jax": jax.__version__, "torch": torch.__version__},
    }
    return vs_matmul, vs_pytorch


def random_batch() -> Batch:
    """Return a batch of noise frames and texts of all lengths, with every noun present."""
    rng = np.random.default_rng(0)
    b, k, c = CONFIG.batch, CONFIG.input.nouns, CONFIG.text
    size = CONFIG.video.resolution

    def texts(*shape: int) -> tuple[np.ndarray, np.ndarray]:
        ids = rng.integers(0, c.vocabulary, (*shape, c.tokens), np.int32)
        return ids, np.arange(c.tokens) < rng.integers(3, c.tokens + 1, (*shape, 1))

    caption_ids, caption_mask = texts(b)
    noun_ids, noun_mask = texts(b, k)
    return Batch(
        frames=rng.integers(0, 256, (b, CONFIG.video.frames, size, size, 3), np.uint8),
        caption_ids=caption_ids,
        caption_mask=caption_mask,
        noun_ids=noun_ids,
        noun_mask=noun_mask,
        noun_valid=np.ones((b, k), bool),
        index=np.arange(b, dtype=np.int32),
    )


def _moved(params: Any) -> Any:
    """Return parameters moved off their initial values.

    Many initial values are 0 or 1, so they would not affect the compared results.
    """
    rng = np.random.default_rng(1)

    def moved(leaf: jax.Array) -> jax.Array:
        by = 0.02 * rng.standard_normal(leaf.shape, np.float32)
        return jax.device_put(np.asarray(leaf) + by, leaf.sharding)

    return jax.tree.map(moved, params)


def _draws(step: Any, index: Any) -> tuple[Any, dict[int, Any]]:
    """Return the splice and the Gumbel noise that the JAX step draws, as PyTorch tensors."""
    scalars, video = run_scalars(CONFIG, _STEPS), CONFIG.video
    keys = clip_keys(scalars.key(), step, index)
    splice = splice_at_step(
        for_purpose(keys, SPLICE),
        step,
        video.windows,
        CONFIG.cut_and_paste,
        scalars.first_spliced_step,
    )
    noise = {
        layer: gumbel_noise(
            for_purpose(keys, GUMBEL), layer, video.group_tokens, video.windows * video.patches
        )
        for layer in video.grouping_after
    }
    as_tensors = [torch.tensor(np.asarray(part)) for part in splice]
    as_tensors[0] = as_tensors[0].long()
    return tuple(as_tensors), {layer: torch.tensor(np.asarray(x)) for layer, x in noise.items()}


def _jax_product() -> Callable[[], Any]:
    a, b = random.normal(random.key(0), (2, _N, _N))
    product = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(product(a, b))


def _torch_product() -> Callable[[], Any]:
    a, b = torch.randn(2, _N, _N)
    return lambda: a @ b


def _seconds(run: Callable[[], Any]) -> float:
    began = time.monotonic()
    run()
    return time.monotonic() - began


def main() -> int:
    """Measure, and write the figures next to those of other benchmarks."""
    start_with_malloc_tuned()  # svilm-train does the same.
    for key, measured in zip(("step_vs_matmul", "step_vs_pytorch"), measure(), strict=True):
        keep(key, measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
