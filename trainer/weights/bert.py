"""BERT (Devlin et al. 2019), whose text encoder matches the model's tensor for tensor."""

from collections.abc import Iterator
from typing import Any

from jaxtyping import PyTree

from trainer.configs.config import TextConfig
from trainer.weights.hf_format import Checkpoint, WeightsError, sized
from trainer.weights.param_mapping import (
    SAME,
    Place,
    dense,
    heads_first,
    heads_last,
    norm,
    spare,
    to_params,
)

PREFIX = "bert."
# The pooler, the heads of tasks, and the position ids, which old releases saved.
UNUSED = r"pooler\..*|cls\..*|classifier\..*|qa_outputs\..*|embeddings\.position_ids"


def text_config(checkpoint: Checkpoint, config: TextConfig) -> TextConfig:
    """Return a text encoder configuration with the checkpoint's sizes.

    Raises:
      WeightsError: the checkpoint is not BERT, or an unsupported variant.
    """
    for name, wanted, default in (
        ("model_type", "bert", None),
        ("hidden_act", "gelu", "gelu"),
        ("position_embedding_type", "absolute", "absolute"),
        ("type_vocab_size", 2, 2),
        ("is_decoder", False, False),  # causal attention is unsupported
        ("add_cross_attention", False, False),
    ):
        found = checkpoint.setting(name, type(wanted), default)
        if found != wanted:
            pieces = "; give a BERT or MiniLM, as texts are split into WordPieces"
            raise WeightsError(
                f"{checkpoint.folder}: {name} is {found!r}, but only {wanted!r} is supported"
                f"{pieces if name == 'model_type' else ''}"
            )
    return sized(
        checkpoint,
        config,
        vocabulary=checkpoint.setting("vocab_size", int),
        positions=checkpoint.setting("max_position_embeddings", int),
        width=checkpoint.setting("hidden_size", int),
        layers=checkpoint.setting("num_hidden_layers", int),
        heads=checkpoint.setting("num_attention_heads", int),
        mlp_width=checkpoint.setting("intermediate_size", int),
        norm_eps=checkpoint.setting("layer_norm_eps", float, 1e-12),
    )


def places(config: TextConfig) -> Iterator[Place]:
    """Yield the mapping of every parameter of the text encoder."""
    width, heads = config.width, config.heads
    for ours, theirs, count in (
        ("words", "word", config.vocabulary),
        ("positions", "position", config.positions),
        ("types", "token_type", 2),
    ):
        yield Place(ours, f"embeddings.{theirs}_embeddings.weight", (count, width), SAME)
    yield from norm("norm", "embeddings.LayerNorm", width)
    for layer in range(1, config.layers + 1):
        ours, theirs = f"layer_{layer}", f"encoder.layer.{layer - 1}"
        for part in ("query", "key", "value"):
            name = f"{theirs}.attention.self.{part}"
            path = f"{ours}.attention.{part}"
            yield Place(f"{path}.kernel", f"{name}.weight", (width, width), heads_last(heads))
            yield Place(f"{path}.bias", f"{name}.bias", (width,), heads_last(heads))
        name = f"{theirs}.attention.output"
        path = f"{ours}.attention.out"
        yield Place(f"{path}.kernel", f"{name}.dense.weight", (width, width), heads_first(heads))
        yield Place(f"{path}.bias", f"{name}.dense.bias", (width,), SAME)
        yield from norm(f"{ours}.norm_attention", f"{name}.LayerNorm", width)
        hidden = config.mlp_width
        yield from dense(f"{ours}.mlp.in", f"{theirs}.intermediate.dense", width, hidden)
        yield from dense(f"{ours}.mlp.out", f"{theirs}.output.dense", hidden, width)
        yield from norm(f"{ours}.norm_mlp", f"{theirs}.output.LayerNorm", width)


def params(checkpoint: Checkpoint, config: TextConfig) -> PyTree:
    """Return the text encoder's parameters from a checkpoint.

    Raises:
      WeightsError: a tensor is missing or unexpected, or has a wrong shape.
    """
    # BERT's first conversions kept TensorFlow's names of the layer norms.
    renamed = {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
            "LayerNorm.beta", "LayerNorm.bias"
        ): tensor
        for name, tensor in checkpoint.tensors.items()
    }
    return to_params(checkpoint._replace(tensors=renamed), PREFIX, places(config), UNUSED)


def unused_parts(checkpoint: Checkpoint) -> list[str]:
    """Return the names of the checkpoint's unused tensors: heads and the pooler."""
    return spare(checkpoint, PREFIX, UNUSED)


def settings(config: TextConfig) -> dict[str, Any]:
    """Return the config.json of an encoder with this configuration."""
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "pad_token_id": 0,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.positions,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_width,
        "layer_norm_eps": config.norm_eps,
    }
