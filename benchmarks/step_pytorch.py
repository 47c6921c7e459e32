"""S-ViLM's training step in plain PyTorch, the baseline of benchmarks/step.py.

The model, losses and update are those of trainer/method/train_step.py, in idiomatic PyTorch: query,
key and value in one product, `scaled_dot_product_attention`, autograd, `torch.optim`. Modules have
the names of the JAX parameters. Every caption has all its nouns. Colours are not augmented.
"""

import collections
import math
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]  # of the extra [bench], in .venv-bench
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from trainer.configs.config import Config, TextConfig, VideoConfig
from trainer.data.types import Batch


def mlp(width: int, hidden: int, gelu: str) -> nn.Sequential:
    """Return an MLP: linear, GELU, linear."""
    approximate = {"tanh": "tanh", "erf": "none"}[gelu]
    layers = {
        "in": nn.Linear(width, hidden),
        "gelu": nn.GELU(approximate=approximate),
        "out": nn.Linear(hidden, width),
    }
    return nn.Sequential(collections.OrderedDict(layers))


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Apply attention to [b, n, d]; `mask` is False at keys that no query attends to."""
        b, n, d = x.shape
        split = self.query_key_value(x).view(b, n, 3, self.heads, d // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(attended.transpose(1, 2).reshape(b, n, d))


class VideoBlock(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, c: VideoConfig) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(c.width, c.norm_eps)
        self.attention = Attention(c.width, c.heads)
        self.norm_mlp = nn.LayerNorm(c.width, c.norm_eps)
        self.mlp = mlp(c.width, c.mlp_width, c.gelu)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to [b, n, d]."""
        x = x + self.attention(self.norm_attention(x))
        return x + self.mlp(self.norm_mlp(x))


class Grouping(nn.Module):
    """The grouping block of appendix A.2."""

    def __init__(self, c: VideoConfig) -> None:
        super().__init__()
        self.norm_groups = nn.LayerNorm(c.width, c.norm_eps)
        self.norm_tokens = nn.LayerNorm(c.width, c.norm_eps)
        self.query, self.key, self.value, self.out = (nn.Linear(c.width, c.width) for _ in range(4))
        self.norm_mlp = nn.LayerNorm(c.width, c.norm_eps)
        self.mlp = mlp(c.width, 4 * c.width, c.gelu)

    def forward(self, groups: Tensor, tokens: Tensor, noise: Tensor | None) -> Tensor:
        """Gather tokens [b, n, d] in groups [b, m, d]; None draws the Gumbel `noise` here."""
        x = self.norm_tokens(tokens)
        q, k, v = self.query(self.norm_groups(groups)), self.key(x), self.value(x)
        logits = q @ k.transpose(1, 2) * groups.shape[-1] ** -0.5
        if noise is None:
            noise = -torch.empty_like(logits).exponential_().log()
        soft = (logits + noise).softmax(1)
        hard = functional.one_hot(soft.argmax(1), groups.shape[1]).transpose(1, 2)
        hard = hard - soft.detach() + soft
        gathered = hard @ v / (hard.sum(-1, keepdim=True) + 1)
        groups = groups + self.out(gathered)
        return groups + self.mlp(self.norm_mlp(groups))


class VideoEncoder(nn.Module):
    """Joint space-time attention over video tokens and group tokens."""

    def __init__(self, c: VideoConfig) -> None:
        super().__init__()
        self.c = c
        self.embed = nn.Linear(c.tubelet * c.patch**2 * 3, c.width)
        self.positions = nn.Parameter(torch.zeros(c.windows * c.patches, c.width))
        self.group_tokens = nn.Parameter(torch.zeros(c.group_tokens, c.width))
        for layer in range(1, c.layers + 1):
            self.add_module(f"layer_{layer}", VideoBlock(c))
        for layer in c.grouping_after:
            self.add_module(f"grouping_{layer}", Grouping(c))
        self.norm = nn.LayerNorm(c.width, c.norm_eps)
        self.norm_groups = nn.LayerNorm(c.width, c.norm_eps)

    def forward(self, pixels: Tensor, noise: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Encode normalized [b, t, h, w, 3] as tokens [b, nt, s, d] and groups [b, m, d]."""
        c, side = self.c, self.c.resolution // self.c.patch
        x = pixels.view(len(pixels), c.windows, c.tubelet, side, c.patch, side, c.patch, 3)
        x = x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(len(pixels), c.windows * c.patches, -1)
        x = self.embed(x) + self.positions
        g = self.group_tokens.expand(len(pixels), -1, -1)
        for layer in range(1, c.layers + 1):
            joined = self.get_submodule(f"layer_{layer}")(torch.cat([x, g], 1))
            x, g = joined[:, : x.shape[1]], joined[:, x.shape[1] :]
            if layer in c.grouping_after:
                g = self.get_submodule(f"grouping_{layer}")(g, x, noise.get(layer))
        tokens = self.norm(x).view(len(pixels), c.windows, c.patches, c.width)
        return tokens, self.norm_groups(g)


class TextBlock(nn.Module):
    """A post-norm transformer layer."""

    def __init__(self, c: TextConfig) -> None:
        super().__init__()
        self.attention = Attention(c.width, c.heads)
        self.norm_attention = nn.LayerNorm(c.width, c.norm_eps)
        self.mlp = mlp(c.width, c.mlp_width, "erf")
        self.norm_mlp = nn.LayerNorm(c.width, c.norm_eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Apply the layer to [b, l, d]."""
        x = self.norm_attention(x + self.attention(x, mask))
        return self.norm_mlp(x + self.mlp(x))


class TextEncoder(nn.Module):
    """The BERT text encoder."""

    def __init__(self, c: TextConfig) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.zeros(c.vocabulary, c.width))
        self.positions = nn.Parameter(torch.zeros(c.positions, c.width))
        self.types = nn.Parameter(torch.zeros(2, c.width))
        self.norm = nn.LayerNorm(c.width, c.norm_eps)
        for layer in range(1, c.layers + 1):
            self.add_module(f"layer_{layer}", TextBlock(c))
        self.layers = c.layers

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode WordPiece ids [b, l] as the state at [CLS], [b, d]."""
        x = functional.embedding(ids, self.words) + self.positions[: ids.shape[1]] + self.types[0]
        x, mask = self.norm(x), mask[:, None, None]
        for layer in range(1, self.layers + 1):
            x = self.get_submodule(f"layer_{layer}")(x, mask)
        return x[:, 0]


class Model(nn.Module):
    """Both encoders, the joint space, and the losses."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.video = VideoEncoder(config.video)
        self.text = TextEncoder(config.text)
        self.project_video = nn.Linear(config.video.width, config.joint_width)
        self.project_text = nn.Linear(config.text.width, config.joint_width)

    def forward(
        self, batch: Batch, splice: tuple[Tensor, Tensor, Tensor], noise: dict[int, Tensor]
    ) -> Tensor:
        """Return the sum of the three losses.

        Args:
          batch: a batch of tensors.
          splice: each clip's partner, foreground windows and foreground share, as
            trainer/method/cut_and_paste.py draws them.
          noise: Gumbel noise by grouping layer; missing layers draw their own.
        """
        partner, mask, share = splice
        loss, video = self.config.loss, self.config.video
        of_foreground = mask.repeat_interleave(video.tubelet, 1)[..., None, None, None]
        pixels = torch.where(of_foreground, batch.frames, batch.frames[partner]).float() / 255
        pixels = (pixels - torch.tensor(video.pixel_mean)) / torch.tensor(video.pixel_std)
        tokens, groups = self.video(pixels, noise)
        projected = self.project_video(groups)
        clip, groups = (
            functional.normalize(projected.mean(1), dim=-1),
            functional.normalize(projected, dim=-1),
        )

        ids = torch.cat([batch.caption_ids[:, None], batch.noun_ids], 1)
        known = torch.cat([batch.caption_mask[:, None], batch.noun_mask], 1)
        text = self.project_text(self.text(ids.flatten(0, 1), known.flatten(0, 1)))
        text = functional.normalize(text, dim=-1).view(*ids.shape[:2], -1)
        caption, nouns = text[:, 0], text[:, 1:]

        weights = torch.diag(share)
        weights[torch.arange(len(share)), partner] += 1 - share
        grounding = similarity(groups, nouns, loss.group_temperature)
        return (
            temporal_loss(tokens, mask, loss.temporal_temperature)
            + alignment(grounding / loss.grounding_temperature, weights)
            + alignment(clip @ caption.T / loss.contrast_temperature, weights)
        )


def temporal_loss(tokens: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Return the temporal loss, equations 1 and 2, as the mean squared error."""
    windows = tokens.mean(2)
    member = torch.stack([~mask, mask], 1).float()
    centres = member @ windows / member.sum(-1, keepdim=True)
    cosines = functional.normalize(windows, dim=-1) @ functional.normalize(
        centres, dim=-1
    ).transpose(1, 2)
    return functional.mse_loss((cosines / temperature).softmax(-1), member.transpose(1, 2))


def similarity(groups: Tensor, nouns: Tensor, temperature: float) -> Tensor:
    """Return the similarity of videos and captions, equation 3, [v, c]."""
    s = torch.einsum("vme,cke->vckm", groups, nouns)
    pooled = torch.einsum("vckm,vme->vcke", (s / temperature).softmax(-1), groups)
    return (functional.normalize(pooled, dim=-1) * nouns).sum(-1).mean(-1)


def alignment(logits: Tensor, weights: Tensor) -> Tensor:
    """Return the contrastive loss in both directions, equations 4, 6 and 7."""
    both = logits.log_softmax(1) + logits.log_softmax(0)
    return -(weights * both).sum(1).mean()


def fill(module: nn.Module, ours: Any) -> None:
    """Copy the JAX parameters, NumPy arrays by name, to a module and its submodules."""
    with torch.no_grad():
        for name, parameter in module.named_parameters(recurse=False):
            parameter.copy_(torch.tensor(ours[name]))
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                parts = (
                    [ours[part] for part in name.split("_")] if name not in ours else [ours[name]]
                )
                kernels = [part["kernel"].reshape(child.in_features, -1) for part in parts]
                biases = [part["bias"].ravel() for part in parts]
                child.weight.copy_(torch.tensor(np.concatenate(kernels, 1).T))
                child.bias.copy_(torch.tensor(np.concatenate(biases)))
            elif isinstance(child, nn.LayerNorm):
                child.weight.copy_(torch.tensor(ours[name]["scale"]))
                child.bias.copy_(torch.tensor(ours[name]["bias"]))
            elif not isinstance(child, nn.GELU):
                fill(child, ours[name])


class Step:
    """A model and its optimizer, which each call updates on a batch."""

    def __init__(self, config: Config, params: Any) -> None:
        self.model = Model(config)
        fill(self.model, params)
        clip_norm = config.optimizer.clip_norm
        self._clip_norm = math.inf if clip_norm is None else clip_norm
        self._optimizer = torch.optim.SGD(
            self.model.parameters(), lr=1e-4, momentum=config.optimizer.momentum, fused=True
        )

    def __call__(
        self, batch: Batch, splice: tuple[Tensor, Tensor, Tensor], noise: dict[int, Tensor]
    ) -> tuple[float, float]:
        """Update the model; return the loss and the gradient's norm before clipping."""
        self._optimizer.zero_grad()
        loss = self.model(batch, splice, noise)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self._clip_norm)
        self._optimizer.step()
        return loss.item(), norm.item()
