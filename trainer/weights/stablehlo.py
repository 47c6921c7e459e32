"""A model's two encoders as StableHLO programs of any batch size, by jax.export.

video.stablehlo    parameters, uint8 frames [b, T, R, R, 3] -> clip, groups, group_of, share
text.stablehlo     parameters, int32 ids [b, L], bool mask [b, L] -> embedding [b, E]
model.safetensors  the parameters by name, the first argument of both
vocab.txt, tokenizer_config.json  the tokenizer
programs.json      versions, platforms and shapes; written last

    program = jax.export.deserialize(pathlib.Path("text.stablehlo").read_bytes())
    embedding = program.call(safetensors.numpy.load_file("model.safetensors"), ids, mask)
"""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import safetensors
from jaxtyping import Array, Bool, Float, Int, UInt8

from trainer.configs.config import ComputeConfig, Config
from trainer.data import safetensors_file
from trainer.data.tokenizer_settings import VOCABULARY
from trainer.finite import finite_tensors
from trainer.method.models.svilm import SViLM, normalize
from trainer.runs.checkpoint import Loaded
from trainer.runs.tensor_shapes import by_name
from trainer.weights.hf_format import TENSORS, WeightsError

ABOUT, SUFFIX = "programs.json", ".stablehlo"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def write(folder: pathlib.Path, run: Loaded) -> None:
    """Write a model's programs and parameters.

    Raises:
      NonFiniteError: a parameter is not finite.
      WeightsError: the folder cannot be written.
    """
    params = {name: part for name, part in run.params.items() if name != "head"}
    tensors = {name: np.asarray(leaf) for name, leaf in by_name(params).items()}
    finite_tensors(str(folder), tensors)
    programs = {"video": _video(run.config, params), "text": _text(run.config, params)}
    about = {
        "jax": jax.__version__,
        "step": run.step,
        "config": json.loads(run.config.to_json()),
        "programs": {name: _described(program) for name, program in programs.items()},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ABOUT).unlink(missing_ok=True)
        safetensors_file.save(tensors, folder / TENSORS)
        for name, program in programs.items():
            (folder / f"{name}{SUFFIX}").write_bytes(program.serialize())
        run.tokenizer.save(folder / VOCABULARY, run.config.text.tokens)
        (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(
            f"{folder} cannot be written: {error}; give a writable folder with free space"
        ) from None


def _video(config: Config, params: Any) -> jax.export.Exported:
    structure, model, video = jax.tree.structure(params), _model(config), config.video

    def encode(
        tensors: dict[str, Array], frames: UInt8[Array, "b t h w c"]
    ) -> dict[str, Float[Array, "..."] | Int[Array, "..."]]:
        given = jax.tree.unflatten(structure, [tensors[name] for name in by_name(params)])
        pixels = normalize(frames, video)
        embedding: Any = model.apply({"params": given}, pixels, method="encode_video")
        hard, soft = embedding.features.assignment
        return {
            "clip": embedding.clip,
            "groups": embedding.groups,
            "group_of": jnp.argmax(hard, axis=1),
            "share": jnp.max(soft, axis=1),
        }

    shape = f"b, {video.frames}, {video.resolution}, {video.resolution}, 3"
    frames = jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), jnp.uint8)
    return _exported(encode, _shapes(params), frames)


def _text(config: Config, params: Any) -> jax.export.Exported:
    structure, model = jax.tree.structure(params), _model(config)

    def encode(
        tensors: dict[str, Array], ids: Int[Array, "b l"], mask: Bool[Array, "b l"]
    ) -> Float[Array, "b e"]:
        given = jax.tree.unflatten(structure, [tensors[name] for name in by_name(params)])
        embedding: Any = model.apply({"params": given}, ids, mask, method="encode_text")
        return embedding

    shape = jax.export.symbolic_shape(f"b, {config.text.tokens}")
    ids, mask = (jax.ShapeDtypeStruct(shape, kind) for kind in (jnp.int32, jnp.bool))
    return _exported(encode, _shapes(params), ids, mask)


def _model(config: Config) -> SViLM:
    # Plain attention is compiled on every platform.
    compute = ComputeConfig(dtype=config.compute.dtype, attention="plain")
    return SViLM(dataclasses.replace(config, compute=compute))


def _shapes(params: Any) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in by_name(params).items()
    }


def _exported(encode: Any, *arguments: Any) -> jax.export.Exported:
    return jax.export.export(jax.jit(encode), platforms=PLATFORMS)(*arguments)


def _described(program: jax.export.Exported) -> dict[str, Any]:
    """Return what a user must know to call a program, without the parameters."""

    def shapes(tree: Any) -> dict[str, str]:
        return {name: str(leaf) for name, leaf in by_name(tree).items()}

    (_, *inputs), _ = jax.tree.unflatten(program.in_tree, program.in_avals)
    return {
        "calling_convention_version": program.calling_convention_version,
        "platforms": list(program.platforms),
        "inputs": shapes(inputs),
        "outputs": shapes(jax.tree.unflatten(program.out_tree, program.out_avals)),
    }
