"""S-ViLM (Xiong et al. 2024) in PyTorch, for inference: two encoders and their projections.

The names of modules and parameters are those of svilm's JAX model. Equations and appendices are
the paper's.
"""

import collections
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from .configuration_svilm import SViLMConfig


class VideoEmbedding(NamedTuple):
    """A clip in the joint space, and the features it came from."""

    clip: Tensor  # [b, e] f^v: mean of the projected group tokens, L2-normalized
    groups: Tensor  # [b, m, e] g^m, L2-normalized
    group_of: Tensor  # [b, n] the group of each video token, by the last grouping block
    share: Tensor  # [b, n] the token's soft assignment to that group
    tokens: Tensor  # [b, nt, s, d] video tokens, after the final norm
    group_tokens: Tensor  # [b, m, d] group tokens, after their own final norm


@dataclass
class SViLMOutput(ModelOutput):
    """Embeddings of videos and texts, L2-normalized, and their cosines."""

    video_embeds: Tensor | None = None  # [v, e]
    group_embeds: Tensor | None = None  # [v, m, e]
    text_embeds: Tensor | None = None  # [t, e]
    similarity: Tensor | None = None  # [v, t]


def l2_normalize(x: Tensor) -> Tensor:
    """Divide by the L2 norm over the last axis; a zero vector stays zero."""
    squared = x.square().sum(-1, keepdim=True)
    return x / squared.clamp_min(torch.finfo(x.dtype).tiny).sqrt()


def tubelets(pixels: Tensor, length: int, patch: int) -> Tensor:
    """Cut clips [b, t, c, h, w] into tubelets [b, nt, s, p], each flattened as (t, h, w, c)."""
    b, t, c, h, w = pixels.shape
    x = pixels.reshape(b, t // length, length, c, h // patch, patch, w // patch, patch)
    x = x.permute(0, 1, 4, 6, 2, 5, 7, 3)
    return x.reshape(b, t // length, (h // patch) * (w // patch), length * patch * patch * c)


class Attention(nn.Module):
    """Multi-head attention with biases, of a sequence to itself or to another."""

    def __init__(self, width: int, heads: int) -> None:
        """Make the four projections."""
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor | None = None, context: Tensor | None = None):
        """Attend to `context`, or to `x` itself; `mask` [b, n] is False at keys to ignore."""
        attended_to = x if context is None else context
        query, key, value = (
            projection(vectors).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, vectors in (
                (self.query, x),
                (self.key, attended_to),
                (self.value, attended_to),
            )
        )
        keys = None if mask is None else mask[:, None, None, :]
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=keys)
        return self.out(attended.transpose(1, 2).flatten(-2))


class QuickGELU(nn.Module):
    """CLIP's approximation of the GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x σ(1.702 x)."""
        return x * torch.sigmoid(1.702 * x)


def mlp(width: int, hidden: int, gelu: str) -> nn.Sequential:
    """Return the perceptron Linear, GELU, Linear; the GELU is "tanh", "erf" or "quick"."""
    exact = nn.GELU(approximate="tanh" if gelu == "tanh" else "none")
    layers = {
        "input": nn.Linear(width, hidden),
        "gelu": QuickGELU() if gelu == "quick" else exact,
        "out": nn.Linear(hidden, width),
    }
    return nn.Sequential(collections.OrderedDict(layers))


class VideoBlock(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, c: dict[str, Any]) -> None:
        """Make a layer of the video encoder."""
        super().__init__()
        width, eps = c["width"], c["norm_eps"]
        self.norm_attention, self.norm_mlp = (nn.LayerNorm(width, eps) for _ in range(2))
        self.attention = Attention(width, c["heads"])
        self.mlp = mlp(width, c["mlp_width"], c["gelu"])

    def forward(self, x: Tensor) -> Tensor:
        """Add attention, then the perceptron, to the residual stream."""
        x = x + self.attention(self.norm_attention(x))
        return x + self.mlp(self.norm_mlp(x))


class Mixing(nn.Module):
    """GroupViT's update of the group tokens before tokens are assigned to them."""

    def __init__(self, c: dict[str, Any]) -> None:
        """Make the perceptron over groups, the attention and the perceptron over channels."""
        super().__init__()
        width, eps = c["width"], c["norm_eps"]
        self.mix = mlp(c["group_tokens"], width // 2, c["gelu"])
        self.norm_mixed, self.norm_mlp, self.norm_attended = (
            nn.LayerNorm(width, eps) for _ in range(3)
        )
        self.attention = Attention(width, c["heads"])
        self.mlp = mlp(width, 4 * width, c["gelu"])

    def forward(self, groups: Tensor, tokens: Tensor) -> Tensor:
        """Return the mixed group tokens; both inputs must be normalized already."""
        g = self.mix(groups.transpose(1, 2)).transpose(1, 2)
        g = self.norm_mixed(g)
        g = g + self.attention(g, context=tokens)
        g = g + self.mlp(self.norm_mlp(g))
        return self.norm_attended(g)


class GroupingBlock(nn.Module):
    """Block that updates group tokens from the video tokens assigned to them (appendix A.2)."""

    def __init__(self, c: dict[str, Any]) -> None:
        """Make the projections, the perceptron, and GroupViT's mixing if it is configured."""
        super().__init__()
        width, eps = c["width"], c["norm_eps"]
        self.norm_groups, self.norm_tokens, self.norm_mlp = (
            nn.LayerNorm(width, eps) for _ in range(3)
        )
        self.mixing = Mixing(c) if c["grouping"] == "groupvit" else None
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.mlp = mlp(width, 4 * width, c["gelu"])

    def forward(self, groups: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the updated group tokens, and the soft assignment [b, m, n] of video tokens."""
        g, x = self.norm_groups(groups), self.norm_tokens(tokens)
        if self.mixing is not None:
            groups = g = self.mixing(g, x)
        logits = self.query(g) @ self.key(x).transpose(1, 2) * g.shape[-1] ** -0.5
        soft = logits.softmax(dim=1)
        hard = torch.zeros_like(soft).scatter_(1, soft.argmax(dim=1, keepdim=True), 1.0)
        # The sum of a group's values over its size + 1, so that an empty group gives 0.
        gathered = hard @ self.value(x) / (hard.sum(-1, keepdim=True) + 1.0)
        groups = groups + self.out(gathered)
        return groups + self.mlp(self.norm_mlp(groups)), soft


class VideoEncoder(nn.Module):
    """Joint space-time attention over video tokens and learned group tokens (section 4.2)."""

    def __init__(self, c: dict[str, Any]) -> None:
        """Make the encoder of a configuration's `video`."""
        super().__init__()
        self.c, width = c, c["width"]
        windows, side = c["frames"] // c["tubelet"], c["resolution"] // c["patch"]
        self.embed = nn.Linear(c["tubelet"] * c["patch"] ** 2 * 3, width)
        self.positions = nn.Parameter(torch.empty(windows * side**2, width))
        self.group_tokens = nn.Parameter(torch.empty(c["group_tokens"], width))
        # Class tokens and registers of each window, and CLIP's norm: of runs from image encoders.
        prefixes = c.get("prefix_tokens", 0)
        self.prefix_tokens = (
            nn.Parameter(torch.empty(windows, prefixes, width)) if prefixes else None
        )
        self.norm_before = nn.LayerNorm(width, c["norm_eps"]) if c.get("norm_before") else None
        for layer in range(1, c["layers"] + 1):
            self.add_module(f"layer_{layer}", VideoBlock(c))
            if layer in c["grouping_after"]:
                self.add_module(f"grouping_{layer}", GroupingBlock(c))
        self.norm, self.norm_groups = (nn.LayerNorm(width, c["norm_eps"]) for _ in range(2))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return video tokens [b, nt, s, d], group tokens [b, m, d] and the last assignment."""
        x = self.embed(tubelets(pixels, self.c["tubelet"], self.c["patch"]))
        shape = x.shape
        x = x.flatten(1, 2) + self.positions
        g = self.group_tokens.expand(x.shape[0], -1, -1)
        x = x if self.norm_before is None else self.norm_before(x)
        count, first, soft = x.shape[1], 0, x
        if self.prefix_tokens is not None:
            prefix = self.prefix_tokens.flatten(0, 1).expand(x.shape[0], -1, -1)
            prefix = prefix if self.norm_before is None else self.norm_before(prefix)
            first, g = prefix.shape[1], torch.cat([prefix, g], dim=1)
        for layer in range(1, self.c["layers"] + 1):
            joined = self.get_submodule(f"layer_{layer}")(torch.cat([x, g], dim=1))
            x, g = joined[:, :count], joined[:, count:]
            if layer in self.c["grouping_after"]:
                grouped, soft = self.get_submodule(f"grouping_{layer}")(g[:, first:], x)
                g = torch.cat([g[:, :first], grouped], dim=1)
        return self.norm(x).reshape(shape), self.norm_groups(g[:, first:]), soft


class TextBlock(nn.Module):
    """A post-norm transformer layer."""

    def __init__(self, c: dict[str, Any]) -> None:
        """Make a layer of the text encoder."""
        super().__init__()
        width, eps = c["width"], c["norm_eps"]
        self.attention = Attention(width, c["heads"])
        self.mlp = mlp(width, c["mlp_width"], "erf")
        self.norm_attention, self.norm_mlp = (nn.LayerNorm(width, eps) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Add attention, then the perceptron, normalizing after each."""
        x = self.norm_attention(x + self.attention(x, mask))
        return self.norm_mlp(x + self.mlp(x))


class TextEncoder(nn.Module):
    """BERT (Devlin et al. 2019); the first of its two token types is used."""

    def __init__(self, c: dict[str, Any]) -> None:
        """Make the encoder of a configuration's `text`."""
        super().__init__()
        self.layers, width = c["layers"], c["width"]
        self.words = nn.Parameter(torch.empty(c["vocabulary"], width))
        self.positions = nn.Parameter(torch.empty(c["positions"], width))
        self.types = nn.Parameter(torch.empty(2, width))
        self.norm = nn.LayerNorm(width, c["norm_eps"])
        for layer in range(1, c["layers"] + 1):
            self.add_module(f"layer_{layer}", TextBlock(c))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the last hidden states [b, l, d]; `mask` is False at padding."""
        x = self.norm(self.words[ids] + self.positions[: ids.shape[1]] + self.types[0])
        for layer in range(1, self.layers + 1):
            x = self.get_submodule(f"layer_{layer}")(x, mask)
        return x


class SViLMModel(PreTrainedModel):
    """S-ViLM: both encoders and their projections into the joint space (Figure 1)."""

    config_class = SViLMConfig
    main_input_name = "pixel_values_videos"

    def __init__(self, config: SViLMConfig) -> None:
        """Make the model of a configuration."""
        super().__init__(config)
        c = config.svilm
        self.video, self.text = VideoEncoder(c["video"]), TextEncoder(c["text"])
        self.project_video = nn.Linear(c["video"]["width"], c["joint_width"])
        self.project_text = nn.Linear(c["text"]["width"], c["joint_width"])
        if c["loss"]["learn_temperatures"]:
            names = ("temporal", "group", "grounding", "contrast")
            self.log_temperatures = nn.ParameterDict({name: torch.zeros(()) for name in names})
        self.post_init()

    def encode_video(self, pixel_values_videos: Tensor) -> VideoEmbedding:
        """Embed clips [b, t, c, h, w], normalized as the processor does."""
        tokens, group_tokens, soft = self.video(pixel_values_videos)
        projected = self.project_video(group_tokens)
        share, group_of = soft.max(dim=1)
        return VideoEmbedding(
            clip=l2_normalize(projected.mean(dim=1)),
            groups=l2_normalize(projected),
            group_of=group_of,
            share=share,
            tokens=tokens,
            group_tokens=group_tokens,
        )

    def get_video_features(self, pixel_values_videos: Tensor) -> Tensor:
        """Embed clips [b, t, c, h, w]: f^v [b, e], L2-normalized."""
        return self.encode_video(pixel_values_videos).clip

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Embed captions (f^c) or prompted nouns (n^k) [b, l]: [b, e], L2-normalized."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        states = self.text(input_ids, attention_mask.bool())
        return l2_normalize(self.project_text(states[:, 0]))

    def ground(
        self,
        pixel_values_videos: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Return heat maps that locate nouns in clips (figures 2 and 4 of the paper).

        Args:
          pixel_values_videos: [b, t, c, h, w] clips.
          input_ids: [k, l] prompted nouns: `processor(nouns=…)`.
          attention_mask: [k, l] 0 at padding.

        Returns:
          [b, k, nt, rows, columns]: the soft assignment of each window and patch to the group that
          is most similar to the noun, 0 where it belongs to another group.
        """
        clips = self.encode_video(pixel_values_videos)
        nouns = self.get_text_features(input_ids, attention_mask)
        nearest = (clips.groups @ nouns.T).argmax(dim=1)  # [b, k]
        belongs = clips.group_of[:, None, :] == nearest[:, :, None]
        heat = torch.where(belongs, clips.share[:, None, :], 0.0)
        windows = clips.tokens.shape[1]
        rows = pixel_values_videos.shape[-2] // self.config.svilm["video"]["patch"]
        return heat.unflatten(2, (windows, rows, -1))

    def forward(
        self,
        pixel_values_videos: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **unused: Any,
    ) -> SViLMOutput:
        """Embed the given clips, texts or both, and compare them."""
        clip = groups = text = None
        if pixel_values_videos is not None:
            clip, groups, *_ = self.encode_video(pixel_values_videos)
        if input_ids is not None:
            text = self.get_text_features(input_ids, attention_mask)
        cosines = None if clip is None or text is None else clip @ text.T
        return SViLMOutput(clip, groups, text, cosines)
