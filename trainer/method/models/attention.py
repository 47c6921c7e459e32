"""Scaled dot-product attention (Vaswani et al. 2017, eq. 1), in four implementations.

All give the same result up to rounding, with softmaxes in float32 or wider. `attend` is the
definition. The others keep no [b, h, q, n] probabilities for the backward pass.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jaxtyping import Array, Bool, Float

from trainer.configs.config import ComputeConfig, VideoConfig

Kind = Literal["plain", "blocked", "pallas", "cudnn"]

ATTENDED = "attention"
"""Name under which rematerialisation may keep the output of attention."""

# Shorter sequences gain nothing from a fused kernel, which pads them to its block size.
_LONG = 512

_LANES = 128  # the kernels' block sizes are multiples of this

# If all keys fit a TPU core's vector memory (16 MB on most), the backward kernel accumulates the
# queries' gradients. Otherwise it writes a partial sum for each block of keys.
_KEYS_ON_CHIP = 3584


def choose(video: VideoConfig, compute: ComputeConfig, platform: str) -> Kind:
    """Return the attention implementation for devices of a platform ("cpu", "gpu", "tpu").

    >>> choose(VideoConfig(), ComputeConfig(), "tpu"), choose(VideoConfig(), ComputeConfig(), "cpu")
    ('pallas', 'blocked')
    """
    if compute.attention != "auto":
        return compute.attention
    length = video.sequence
    if length > _LONG and platform == "tpu":
        return "pallas"
    if length > _LONG and platform == "gpu" and compute.dtype == "bfloat16":
        return "cudnn"
    block = video.attention_block
    return "plain" if block is None or block >= length else "blocked"


def attention(
    query: Float[Array, "b n h k"],
    key: Float[Array, "b n h k"],
    value: Float[Array, "b n h k"],
    kind: Kind,
    block: int | None,
) -> Float[Array, "b n h k"]:
    """Return self-attention without a mask.

    Args:
      query, key, value: vectors of each head.
      kind: the implementation; "pallas" runs only on TPUs, "cudnn" only on NVIDIA GPUs.
      block: number of queries that "blocked" computes at once; None, or at least the number of
        queries, computes all at once.
    """
    if kind == "pallas":
        return attend_on_tpu(query, key, value)  # sets the checkpoint name itself
    if kind == "cudnn":
        attended = jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
    elif kind == "blocked" and block is not None and block < query.shape[1]:
        attended = attend_by_blocks(query, key, value, block)
    else:
        attended = attend(query, key, value)
    return checkpoint_name(attended, ATTENDED)


def attend(
    query: Float[Array, "b q h k"],
    key: Float[Array, "b n h k"],
    value: Float[Array, "b n h k"],
    mask: Bool[Array, "b n"] | None = None,
) -> Float[Array, "b q h k"]:
    """Return attention by its definition; `mask` is False at keys to ignore.

    >>> attend(*jnp.ones((3, 1, 4, 2, 8))).shape
    (1, 4, 2, 8)
    """
    wide = jnp.float32 if query.dtype == jnp.bfloat16 else query.dtype
    logits = jnp.einsum("bqhk,bnhk->bhqn", query, key, preferred_element_type=wide)
    logits *= query.shape[-1] ** -0.5
    if mask is not None:
        logits = jnp.where(mask[:, None, None, :], logits, jnp.finfo(logits.dtype).min)
    probabilities = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqn,bnhk->bqhk", probabilities, value)


def attend_by_blocks(
    query: Float[Array, "b n h k"],
    key: Float[Array, "b n h k"],
    value: Float[Array, "b n h k"],
    block: int,
) -> Float[Array, "b n h k"]:
    """Return attention for at most `block` queries at a time, recomputed in the backward pass.

    So the largest array is [b, h, block, n]. At the paper's 3168 tokens all probabilities take
    0.5 GB per clip and layer, kept for the backward pass. The block sizes are as even as possible,
    to minimize padding.

    >>> x = jax.random.normal(jax.random.key(0), (1, 5, 2, 4))
    >>> whole = attend(x, x, x)
    >>> bool(jnp.allclose(attend_by_blocks(x, x, x, block=2), whole, atol=1e-6))
    True
    """
    b, n, heads, width = query.shape
    block = -(-n // -(-n // block))
    padded = jnp.pad(query, ((0, 0), (0, -n % block), (0, 0), (0, 0)))
    blocks = padded.reshape(b, -1, block, heads, width).swapaxes(0, 1)
    attended = jax.lax.map(jax.checkpoint(lambda queries: attend(queries, key, value)), blocks)
    return attended.swapaxes(0, 1).reshape(b, -1, heads, width)[:, :n]


def attend_on_tpu(
    query: Float[Array, "b n h k"],
    key: Float[Array, "b n h k"],
    value: Float[Array, "b n h k"],
    *,
    interpret: bool = False,
) -> Float[Array, "b n h k"]:
    """Return attention by JAX's Pallas kernels for TPUs ("splash"): one forward, one backward.

    Sequences are padded to the kernels' block size. The padding is a segment of its own, to which
    no token attends. The kernels cannot be partitioned. On several devices, call this function
    inside `shard_map`.

    Args:
      query, key, value: vectors of each head.
      interpret: run the kernels in slow interpret mode on any platform, as tests do.
    """
    _, n, heads, width = query.shape
    padded, block = tpu_blocks(n)
    keys = padded if padded <= _KEYS_ON_CHIP else block

    def laid_out(x: Float[Array, "b n h k"]) -> Float[Array, "b h p k"]:
        return jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, padded - n), (0, 0)))

    kernel = splash.make_splash_mha_single_device(
        splash.MultiHeadMask([splash.FullMask((padded, padded))] * heads),
        block_sizes=splash.BlockSizes(
            block_q=block,
            block_kv=keys,
            block_kv_compute=block,
            block_q_dkv=_LANES,  # the smallest size, so that all keys fit the vector memory
            block_kv_dkv=keys,
            block_kv_dkv_compute=block,
            use_fused_bwd_kernel=True,
        ),
        residual_checkpoint_name=ATTENDED,
        interpret=interpret,
    )
    is_padding = (jnp.arange(padded) >= n).astype(jnp.int32)
    segments = splash.SegmentIds(q=is_padding, kv=is_padding)
    attended: Any = jax.vmap(kernel, in_axes=(0, 0, 0, None))(
        laid_out(query * width**-0.5), laid_out(key), laid_out(value), segments
    )
    return attended[:, :, :n].swapaxes(1, 2)


def tpu_blocks(length: int) -> tuple[int, int]:
    """Return the padded length of a sequence, and the kernel's block size in queries.

    Block sizes are multiples of 128 lanes, up to 1024. Among those with the minimum padding, the
    largest is chosen.

    >>> tpu_blocks(3168), tpu_blocks(100)
    ((3200, 640), (128, 128))
    """
    blocks = range(_LANES, 1025, _LANES)
    return min(((length + -length % b, b) for b in blocks), key=lambda sizes: (sizes[0], -sizes[1]))
