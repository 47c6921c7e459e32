"""Scaled dot-product attention (Vaswani et al. 2017, eq. 1), computed in four ways.

All have the same answer up to rounding, with softmaxes in float32 or wider. `attend` is the
definition; the others keep no [b, h, q, n] probabilities for the backward pass.
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
"""The name under which rematerialisation may keep what attention gives."""

# Shorter sequences gain nothing from a fused kernel, which pads them to its blocks.
_LONG = 512

_LANES = 128  # what the kernels' blocks are multiples of

# With all keys in a TPU core's vector memory (16 MB on most) the backward kernel adds up the
# queries' gradients, instead of writing a part of them for each block of keys.
_KEYS_ON_CHIP = 3584


def choose(video: VideoConfig, compute: ComputeConfig, platform: str) -> Kind:
    """How the video encoder attends on devices of a platform ("cpu", "gpu", "tpu").

    >>> choose(VideoConfig(), ComputeConfig(), "tpu"), choose(VideoConfig(), ComputeConfig(), "cpu")
    ('pallas', 'blocked')
    """
    if compute.attention != "auto":
        return compute.attention
    length = video.windows * video.patches + video.group_tokens
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
    """Self-attention without a mask.

    Args:
      query, key, value: of each head.
      kind: how it is computed; "pallas" and "cudnn" run on TPUs and NVIDIA GPUs alone.
      block: queries attended for at once by "blocked"; None, or no fewer than there are: all.
    """
    if kind == "pallas":
        return attend_on_tpu(query, key, value)  # names what it keeps
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
    """Attention by its definition; `mask` is False at keys that nobody attends to.

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
    """Attention for `block` queries at a time or fewer, computed again in the backward pass.

    So the largest array is [b, h, block, n]: at the paper's 3168 tokens all probabilities are
    0.5 GB a clip and layer, kept for the backward pass. Blocks are as even as can be, to pad least.

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
    """Attention by JAX's Pallas kernels for TPUs ("splash"): one forward, one backward.

    Sequences are padded to the kernels' blocks, and the padding is a segment of its own, to which
    nothing attends. The kernels cannot be partitioned: on several devices call it inside
    `shard_map`.

    Args:
      query, key, value: of each head.
      interpret: run the kernels anywhere, slowly, as tests do.
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
            block_q_dkv=_LANES,  # leaves room for all keys beside what it computes
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
    """The length to pad a sequence to, and how many queries a kernel takes at once.

    Blocks are multiples of 128 lanes; of those with the least padding, the largest up to 1024.

    >>> tpu_blocks(3168), tpu_blocks(100)
    ((3200, 640), (128, 128))
    """
    blocks = range(_LANES, 1025, _LANES)
    return min(((length + -length % b, b) for b in blocks), key=lambda sizes: (sizes[0], -sizes[1]))
