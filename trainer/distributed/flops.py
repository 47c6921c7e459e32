"""Analytic FLOP counts of a training step, the baseline for utilisation.

A multiplication and an addition are two FLOPs. Only matrix products count, each once forward and
twice backward (for its inputs and for its weights). Products for gradients that a locked encoder
does not need do not count. Rematerialisation does not count, so that a policy cannot improve a
run's utilisation by wasting work.
"""

from trainer.configs.config import Config, TextConfig, VideoConfig


def video_flops(config: VideoConfig) -> int:
    """Return the FLOPs to encode one clip, forward, after its tubelets are embedded.

    >>> round(video_flops(VideoConfig()) / 1e9)  # ViT-B over 3168 tokens, three grouping blocks
    932
    """
    tokens, groups, width = config.windows * config.patches, config.group_tokens, config.width
    layer = transformer_layer_flops(config.sequence, width, config.mlp_width)
    grouping = (
        2 * tokens * 2 * width**2  # keys and values
        + 2 * groups * 2 * width**2  # queries and the output projection
        + 2 * 2 * groups * tokens * width  # logits, and the gathered values
        + 2 * 2 * groups * width * 4 * width  # the block's perceptron
    )
    return config.layers * layer + len(config.grouping_after) * grouping


def embed_flops(config: VideoConfig) -> int:
    """Return the FLOPs to embed one clip's tubelets, forward."""
    pixels = config.tubelet * config.patch**2 * 3
    return 2 * config.windows * config.patches * pixels * config.width


def text_flops(config: TextConfig) -> int:
    """Return the FLOPs to encode one caption or noun, forward.

    >>> round(text_flops(TextConfig()) / 1e9, 2)
    5.47
    """
    return config.layers * transformer_layer_flops(config.tokens, config.width, config.mlp_width)


def transformer_layer_flops(tokens: int, width: int, mlp_width: int) -> int:
    """Return the FLOPs of self-attention and perceptron over a sequence, forward."""
    attention = 2 * 2 * tokens**2 * width
    return _weights_flops(tokens, width, mlp_width) + attention


def _weights_flops(tokens: int, width: int, mlp_width: int) -> int:
    """Return the FLOPs of a transformer layer's products with weights, forward."""
    return 4 * 2 * tokens * width**2 + 2 * 2 * tokens * width * mlp_width


def loss_flops(config: Config) -> int:
    """Return the FLOPs of one clip's similarities to the whole batch, forward (section 5)."""
    video, width, nouns = config.video, config.joint_width, config.batch * config.input.nouns
    flops = 0
    if config.loss.contrast_weight:
        flops += 2 * config.batch * width
    if config.loss.grounding_weight:  # S, G Gᵀ of the groups, σ (G Gᵀ)
        groups = config.video.group_tokens
        flops += 2 * nouns * groups * width + 2 * groups**2 * width + 2 * nouns * groups**2
    if config.loss.temporal_weight:  # the two centres, and each window's cosines to them
        flops += 2 * 2 * 2 * video.windows * video.width
    return flops


def clip_flops(config: Config) -> int:
    """Return one clip's FLOPs in a training step: encoders and losses, forward and backward.

    >>> round(clip_flops(Config()) / 1e12, 2)
    2.86
    """
    texts = 1 + config.input.nouns
    projections = (
        2
        * config.joint_width
        * (config.video.group_tokens * config.video.width + texts * config.text.width)
    )
    forward = video_flops(config.video) + texts * text_flops(config.text) + projections
    forward += loss_flops(config)
    # Pixels need no gradient, so the embedding's backward pass is one product, not two.
    return 3 * forward + 2 * embed_flops(config.video) - _locked_flops(config, texts)


def _locked_flops(config: Config, texts: int) -> int:
    """Return the FLOPs that locked encoders save in the backward pass of a clip and its texts.

    Group tokens are trained and pass through the layers of a locked video encoder. These layers
    thus need the gradients of their inputs. A locked text encoder needs none.
    """
    video, optimizer, flops = config.video, config.optimizer, 0
    if optimizer.video_rates.factor == 0:
        weights = _weights_flops(video.sequence, video.width, video.mlp_width)
        flops += video.layers * weights + embed_flops(video)
    if optimizer.text_rates.factor == 0:
        flops += 2 * texts * text_flops(config.text)
    return flops


def fine_tuning_flops(config: Config, texts: int, *, frozen: bool) -> int:
    """Return one clip's FLOPs in a downstream task's step: its encoders, backward if trained.

    Heads and projections are excluded. They take less than a hundredth of the paper's encoders.

    Args:
      config: the run's configuration.
      texts: number of texts encoded with each clip.
      frozen: True if the encoders are not trained.

    >>> round(fine_tuning_flops(Config(), 1, frozen=False) / 1e12, 2)
    2.83
    """
    forward = video_flops(config.video) + texts * text_flops(config.text)
    embed = embed_flops(config.video)
    if frozen:
        return forward + embed
    return 3 * forward + 2 * embed - _locked_flops(config, texts)


def step_flops(config: Config) -> int:
    """Return the FLOPs of a training step over the global batch.

    >>> step_flops(Config()) == 1024 * clip_flops(Config())
    True
    """
    return config.batch * clip_flops(config)
