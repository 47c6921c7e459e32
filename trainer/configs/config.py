"""The configuration of a training run, as frozen dataclasses.

Sizes: T frames, t tubelet length, Nt = T/t windows, S patches per frame, N = Nt·S video tokens, M
group tokens, K nouns, L text tokens, D width, E joint width. Defaults are the paper's. A preset
(one file each, beside this one) overrides some of them.
"""

import dataclasses
import json
import math
from typing import Literal

from protos.strict_json import parse_object
from trainer.configs.fields import build, check_above, check_counts, check_range

Gelu = Literal["tanh", "erf", "quick"]
"""Variants of the GELU: its tanh approximation, its definition, and x·σ(1.702 x)."""


@dataclasses.dataclass(frozen=True)
class VideoConfig:
    """The video encoder (section 4.2: ViT-B/16 with tubelets, grouping blocks)."""

    frames: int = 32  # T
    resolution: int = 224  # H = W, pixels
    tubelet: int = 2  # t, frames
    patch: int = 16  # pixels
    width: int = 768  # D
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    group_tokens: int = 32  # M
    # Learned tokens of each window besides its patches, as image encoders have: a class token and
    # registers. They attend with all others. Grouping and losses ignore them.
    prefix_tokens: int = 0
    norm_before: bool = False  # a norm before the first layer, as in CLIP
    grouping_after: tuple[int, ...] = (6, 9, 12)  # layers, 1-based
    # The block that gathers video tokens into group tokens (trainer/method/models/grouping.py). The
    # paper's is "svilm". The others are the blocks that it combines, as baselines. "groupvit" is
    # GroupViT's own. "kmax" assigns as kMaX does, which leaves queries and keys without a gradient.
    grouping: Literal["svilm", "groupvit", "kmax"] = "svilm"
    # Initial values of Wo in the grouping blocks. "zeros" starts a pre-trained encoder undisturbed.
    # A random encoder needs "xavier". With "zeros" it learns to read clips by attention alone and
    # its groups stay arbitrary (on Shapes with AdamW, pointing was at chance after 750 steps).
    grouping_out: Literal["zeros", "xavier"] = "zeros"
    attention_block: int | None = 528  # queries per block of attention; None: all at once
    norm_eps: float = 1e-6
    gelu: Gelu = "tanh"  # as in ViViT; VideoMAE: "erf"; CLIP: "quick"
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # of pixels in [0, 1]
    pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    # The tubelet kernel that an image encoder's patch kernel makes: "mean" repeats it over time,
    # divided by the tubelet's length. "center" puts it on the middle frame, zeros on the others.
    inflation: Literal["mean", "center"] = "mean"

    @property
    def windows(self) -> int:
        """Nt, temporal windows per clip."""
        return self.frames // self.tubelet

    @property
    def patches(self) -> int:
        """S, patches per frame."""
        return (self.resolution // self.patch) ** 2

    @property
    def sequence(self) -> int:
        """Number of tokens that attend to each other: video, prefix and group tokens."""
        return self.windows * (self.patches + self.prefix_tokens) + self.group_tokens

    def __post_init__(self) -> None:
        check_counts(self, "video", but=("prefix_tokens",))
        check_range("video", "prefix_tokens", self.prefix_tokens, 0.0)
        check_above("video", "norm_eps", self.norm_eps)
        for deviation in self.pixel_std:
            check_above("video", "pixel_std", deviation)
        for whole, part in (
            ("frames", "tubelet"),
            ("resolution", "patch"),
            ("width", "heads"),
        ):
            if getattr(self, whole) % (divisor := getattr(self, part)):
                raise ValueError(
                    f"video: {whole} {getattr(self, whole)} must be divisible by {part} {divisor}"
                )
        wrong = [layer for layer in self.grouping_after if not 1 <= layer <= self.layers]
        if wrong or self.layers not in self.grouping_after:
            raise ValueError(
                f"video: grouping_after {self.grouping_after} must be in 1 … {self.layers} and "
                "end with the last layer"
            )


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The text encoder (section 4.2: BERT-base)."""

    vocabulary: int = 30_522  # WordPieces
    tokens: int = 32  # L, [CLS] and [SEP] included
    positions: int = 512
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        check_counts(self, "text")
        check_above("text", "norm_eps", self.norm_eps)
        if self.width % self.heads:
            raise ValueError(f"text: width {self.width} must be divisible by heads {self.heads}")
        if self.tokens > self.positions:
            raise ValueError(
                f"text: tokens {self.tokens} must be at most positions {self.positions}"
            )
        if self.tokens < 3:
            raise ValueError(
                f"text: tokens must be 3 or more, got {self.tokens}: [CLS] and [SEP] take two"
            )


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """The transformation of a record into a training example (section 4.2).

    Training scales the short side to `short_side` × U(`scale`) and crops `resolution`² pixels,
    at the same position in all frames. Evaluation takes the centre crop at `short_side`.
    """

    # Visits of each clip per epoch, one weight per snapshot of a mixture, in their order. Empty:
    # once each. With 0.5, two epochs visit each clip once.
    weights: tuple[float, ...] = ()
    # Expressions over columns (trainer/data/where.py) that keep the clips for which they are true.
    # One for all snapshots, or one each in their order. An empty one keeps all clips.
    where: tuple[str, ...] = ()
    # Names of the columns with the weight of each clip, 0 or more, likewise one or one each. A
    # clip's visits are proportional to its weight. An empty name visits all clips equally often.
    weights_column: tuple[str, ...] = ()
    # Handling of a corrupt record. "stop" raises an error. "skip" logs it and reads a replacement
    # from half an epoch away.
    on_corrupt: Literal["stop", "skip"] = "stop"
    nouns: int = 2  # K
    short_side: int = 256  # pixels
    scale: tuple[float, float] = (0.9, 1.33)
    flip: bool = True  # horizontal; falsifies captions with "left" or "right"
    # The side that scales crops to the model's size (trainer/training/device_batch.py). Both give
    # the same pixels up to rounding. The "device" has spare time, while the host's CPUs are busy
    # with decoding. "auto" is "device" unless the devices are CPUs.
    scale_on: Literal["auto", "host", "device"] = "auto"
    jitter_probability: float = 0.8
    brightness: float = 0.125  # maximum offset, of pixels in [0, 1]
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.2  # of a full turn
    grey_probability: float = 0.1

    def __post_init__(self) -> None:
        check_counts(self, "input")
        for weight in self.weights:
            check_range("input", "weights", weight, 0.0)
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(
                f"input: scale must be two numbers above 0, low and high, got {self.scale}"
            )
        for name in ("brightness", "contrast", "saturation", "hue"):
            check_range("input", name, getattr(self, name), 0.0)
        for name in ("jitter_probability", "grey_probability"):
            check_range("input", name, getattr(self, name), 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class CutAndPasteConfig:
    """Cut-and-paste (section 3.2). Off in evaluation and fine-tuning."""

    enabled: bool = True
    pair_group: int = 2  # clips that roll together; divides each device's batch
    start_inclusive: bool = False  # True draws s ~ U{0 … Nt−d}: no certain position
    # Share of the run's steps with whole clips, before splicing begins. The paper's encoder is
    # pre-trained on Kinetics-400 before it sees spliced clips. A random encoder learns objects far
    # sooner from whole clips.
    from_share: float = 0.0
    from_step: int | None = None  # the same in steps; overrides from_share; None: unused

    def first_step(self, steps: int) -> int:
        """Return the step, counted from 0, at which splicing begins in a run of `steps`.

        >>> CutAndPasteConfig(from_share=0.423).first_step(520)
        220
        >>> CutAndPasteConfig(from_share=0.423, from_step=7).first_step(520)
        7
        """
        if self.from_step is not None:
            return self.from_step
        return min(round(self.from_share * steps), steps - 1)

    def __post_init__(self) -> None:
        check_range("cut_and_paste", "from_share", self.from_share, 0.0, below=1.0)
        if self.from_step is not None:
            check_range("cut_and_paste", "from_step", self.from_step, 0.0)
        if self.pair_group < 2:
            raise ValueError(
                f"cut_and_paste: pair_group {self.pair_group} has no other clip to paste onto: "
                "use 2 or more"
            )


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The losses (sections 3.2–3.4). A weight of 0 disables its loss (Table 6)."""

    temporal_weight: float = 1.0  # ω1
    grounding_weight: float = 1.0  # ω2
    contrast_weight: float = 1.0  # ω3
    temporal: Literal["mse", "bce"] = "mse"  # the text says MSE twice, eq. 2 prints BCE
    temporal_temperature: float = 0.07  # eq. 1
    group_temperature: float = 0.07  # inner softmax of eq. 3
    grounding_temperature: float = 0.07  # eq. 4 and 6
    contrast_temperature: float = 0.07  # eq. 7
    learn_temperatures: bool = False  # True: the four above are initial values
    grounding_block: int = 64  # rows of G computed at once

    def __post_init__(self) -> None:
        check_counts(self, "loss")
        for name in ("temporal", "grounding", "contrast"):
            check_range("loss", f"{name}_weight", getattr(self, f"{name}_weight"), 0.0)
        if not self.temporal_weight + self.grounding_weight + self.contrast_weight:
            raise ValueError("loss: all three weights are 0, which trains nothing: set one above 0")
        for name in ("temporal", "group", "grounding", "contrast"):
            value = getattr(self, f"{name}_temperature")
            check_range("loss", f"{name}_temperature", value, 0.01, 1.0)


@dataclasses.dataclass(frozen=True)
class RatesConfig:
    """Learning rates of the parts of an encoder that published weights fill.

    These are all of its parameters but group tokens and grouping blocks. Those and the projections
    are new. They train at `optimizer.learning_rate` from the first step.
    """

    factor: float = 1.0  # of `optimizer.learning_rate`; 0 locks these parts
    # Factor of each layer relative to the next one. Of L layers, layer l has layer_decay^(L − l),
    # and the embeddings have layer_decay^L. 1 disables the decay.
    layer_decay: float = 1.0
    # First steps, in which these parts stay as they are. The optimizer's moments do not.
    frozen_steps: int = 0

    def __post_init__(self) -> None:
        check_range("rates", "factor", self.factor, 0.0)
        check_range("rates", "layer_decay", self.layer_decay, 0.01, 1.0)
        check_range("rates", "frozen_steps", self.frozen_steps, 0.0)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer (section 4.2). The schedule is linear warm-up, then cosine to zero."""

    name: Literal["sgd", "adamw", "muon"] = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9  # SGD
    weight_decay: float = 0.0  # AdamW and Muon, on dense layers' kernels
    warmup_share: float = 0.05  # of all steps
    clip_norm: float | None = 1.0  # global gradient norm; None disables clipping
    video_rates: RatesConfig = RatesConfig()
    text_rates: RatesConfig = RatesConfig()

    def warmup_steps(self, steps: int) -> int:
        """Return the number of steps that warm up in a run of `steps`; at least one does not.

        >>> OptimizerConfig(warmup_share=0.1).warmup_steps(100)
        10
        """
        return min(round(self.warmup_share * steps), steps - 1)

    def __post_init__(self) -> None:
        check_above("optimizer", "learning_rate", self.learning_rate)
        check_range("optimizer", "weight_decay", self.weight_decay, 0.0)
        for name in ("momentum", "warmup_share"):
            check_range("optimizer", name, getattr(self, name), 0.0, below=1.0)
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise ValueError(
                f"optimizer: clip_norm must be above 0, got {self.clip_norm:g}: none disables "
                "clipping"
            )


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The distribution of a run over devices. Each device has its share of the batch."""

    fsdp: int = 1  # devices that share one copy of parameters and optimizer state

    def __post_init__(self) -> None:
        check_counts(self, "mesh")


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
    """The computation of a step. Its results stay the same, up to rounding."""

    # Type of activations and matrix products. Parameters, their gradients, norms' statistics,
    # softmaxes, projections into the joint space and losses are float32 with either. (With
    # "float32", accelerators still round the operands of the other products, unless
    # JAX_DEFAULT_MATMUL_PRECISION=highest.)
    dtype: Literal["float32", "bfloat16"] = "float32"
    # The video encoder's attention (trainer/method/models/attention.py). "plain" keeps all
    # probabilities, 0.5 GB per clip and layer at the paper's size. "blocked" computes
    # `video.attention_block` queries at a time. "pallas" and "cudnn" are the fused kernels of TPUs
    # and NVIDIA GPUs. "auto" takes the devices' kernel for long sequences, else "blocked".
    attention: Literal["auto", "plain", "blocked", "pallas", "cudnn"] = "auto"
    # Recomputation in the backward pass. "none" recomputes nothing. "matmuls" keeps the outputs of
    # matrix products and attention (10 D per token). "attention" keeps a layer's input and the
    # attention output (2 D). "block" keeps the layer's input alone (1 D).
    remat: Literal["none", "matmuls", "attention", "block"] = "none"
    # Microbatches of each device's clips, encoded in sequence, for batches larger than memory. Each
    # still sees the negatives of the whole batch: gradient caching (Gao et al. 2021), which encodes
    # every clip a second time for the backward pass. The usual gradient accumulation, a mean over
    # smaller batches, is not offered. It saves the second pass, but each small batch would see
    # its own negatives only, which is another and easier loss.
    microbatches: int = 1

    def __post_init__(self) -> None:
        check_counts(self, "compute")
        if self.attention == "cudnn" and self.dtype != "bfloat16":
            raise ValueError(
                f"compute: attention cudnn does not support {self.dtype}: set "
                "compute.dtype=bfloat16"
            )


@dataclasses.dataclass(frozen=True)
class SpikeConfig:
    """The limits above which a finite step counts as a spike, and so as bad. None: no limit."""

    loss_factor: float | None = None  # maximum ratio of the loss to its running mean
    loss_decay: float = 0.99  # decay of that mean per step
    from_step: int = 100  # minimum good steps in the mean before loss_factor applies
    gradient_norm: float | None = None  # maximum norm of the gradient before clipping

    def __post_init__(self) -> None:
        check_counts(self, "spike")
        check_range("spike", "loss_decay", self.loss_decay, 0.0, 0.9999)
        if self.loss_factor is not None:
            check_range("spike", "loss_factor", self.loss_factor, 1.0)
        if self.gradient_norm is not None:  # every gradient would exceed 0
            check_above("spike", "gradient_norm", self.gradient_norm)


@dataclasses.dataclass(frozen=True)
class Config:
    """The configuration of a whole run."""

    video: VideoConfig = VideoConfig()
    text: TextConfig = TextConfig()
    joint_width: int = 256  # E
    input: InputConfig = InputConfig()
    cut_and_paste: CutAndPasteConfig = CutAndPasteConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    mesh: MeshConfig = MeshConfig()
    compute: ComputeConfig = ComputeConfig()
    batch: int = 1024  # B, over all devices
    epochs: int = 10
    max_steps: int | None = None  # stops earlier and ends the schedule there; None: all epochs
    seed: int = 0
    log_every: int = 50  # steps
    checkpoint_every: int = 1000  # steps
    checkpoint_keep: int = 2  # the last ones; the older one serves if the newer is damaged
    checkpoint_keep_every: int | None = None  # steps between permanent checkpoints; None: none
    # A step is bad if its loss or gradient is not finite or a spike. "skip" skips its update.
    on_bad_step: Literal["stop", "skip"] = "stop"
    spike: SpikeConfig = SpikeConfig()
    skip_in_a_row: int = 10  # maximum consecutive bad steps; one more stops the run
    # EMA decay of the parameters: min(average_decay, (1 + s)/(10 + s)) at step s. 0 disables it.
    # Evaluation and inference use the EMA.
    average_decay: float = 0.0
    evaluate_every: int = 1000  # steps, with --eval-snapshot
    evaluate_clips: int = 1000  # clips of that snapshot, spread over it

    def __post_init__(self) -> None:
        check_counts(self, "run", but=("seed",))
        if not 0 <= self.seed < 2**32:  # JAX uses the low 32 bits only
            raise ValueError(f"run: seed must be in 0 … {2**32 - 1}, got {self.seed}")
        check_range("run", "average_decay", self.average_decay, 0.0, 0.999999)
        if (self.checkpoint_keep_every or 0) % self.checkpoint_every:
            raise ValueError(
                f"checkpoint_keep_every {self.checkpoint_keep_every} must be a multiple of "
                f"checkpoint_every {self.checkpoint_every}: other steps are never saved"
            )
        if self.batch % self.cut_and_paste.pair_group:
            raise ValueError(
                f"batch {self.batch} must be divisible by pair_group "
                f"{self.cut_and_paste.pair_group}"
            )
        if self.cut_and_paste.enabled and self.video.windows < 2:
            raise ValueError(
                f"video: {self.video.frames} frames make {self.video.windows} window of "
                f"{self.video.tubelet}, but cut-and-paste needs two: use more frames"
            )

    def to_json(self) -> str:
        """Return the configuration as JSON, as kept in each checkpoint."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Parse the output of `to_json`.

        Raises:
          ValueError: a field is unknown or its value is invalid. The message names it.

        >>> Config.from_json(Config(batch=64).to_json()).batch
        64
        """
        return build(cls, parse_object(text))
