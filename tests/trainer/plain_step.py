"""A training step without a model, for tests of the loop: it compiles in a second.

Its parameters are a model's, of which it trains one group. Its losses depend on the clips, the
seed and the step.
"""

from functools import partial

import jax
import jax.numpy as jnp

from trainer.distributed.mesh import placed_shapes
from trainer.method import train_step as whole
from trainer.method.run_scalars import compiled_config, run_scalars
from trainer.training import objective

TRAINED = ("project_video",)


class Pretraining(objective.Pretraining):
    """Pre-training that pulls a few parameters to the clips' brightness plus noise."""

    def init_state(self, config, mesh):
        return init_state(config, mesh)

    def state_shapes(self, config, mesh):
        return state_shapes(config, mesh)

    def train_step(self, state, batch, config, steps, mesh):
        scalars = run_scalars(config, steps)
        return train_step(state, batch, scalars, config=compiled_config(config), mesh=mesh)


def init_state(config, mesh):
    return whole.begin(whole.init_state(config, mesh).params, config, TRAINED)


def state_shapes(config, mesh):
    return placed_shapes(jax.eval_shape(lambda: init_state(config, mesh)), mesh)


@partial(jax.jit, static_argnames=("config", "mesh"), donate_argnums=0)
def train_step(state, batch, scalars, *, config, mesh):
    keys = whole.clip_keys(scalars.key(), state.step, batch.index)
    brightness = jnp.mean(batch.frames.astype(jnp.float32), axis=(1, 2, 3, 4)) / 255
    seen = brightness + jax.vmap(jax.random.normal)(keys)

    def loss(params):
        mean = sum(jnp.mean(leaf) for leaf in jax.tree.leaves(params[TRAINED[0]]))
        error = jnp.mean(jnp.square(seen - mean))
        names = ["loss", "temporal", "grounding", "contrast", "group_entropy"]
        return error, {name: error for name in names}

    return whole.apply_gradients(state, loss, scalars, config, mesh, TRAINED)
