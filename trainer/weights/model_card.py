"""The model card of an export: README.md with data, figures, limits and licence of the model."""

from collections.abc import Mapping
from typing import Any

from trainer.runs.checkpoint import Loaded
from trainer.runs.provenance import has_joint_space, parameters_sha256

_USE = """\
## Use

```python
import torch
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained(FOLDER, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(FOLDER, trust_remote_code=True)
with torch.no_grad():
    texts = model.get_text_features(**processor(text=["a red ring is rising"]))
    videos = model.get_video_features(**processor(videos=["a.mp4", "b.mp4"]))
    print(texts @ videos.T)  # cosines
    # Heat maps of nouns: [videos, nouns, windows, rows, columns]
    heat = model.ground(**processor(videos="a.mp4", nouns=["red ring"]))
```

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(FOLDER, trust_remote_code=True)
print(model.similarity(model.encode(["a red ring"]), model.encode(["a.mp4"])))
```

It needs torch, transformers, av and simplejpeg, and Sentence-Transformers for the second example.
`svilm-train import --from FOLDER --out RUN` makes a run of it.
"""


def text(
    run: Loaded,
    data: Mapping[str, Any],
    *,
    figures: str | None = None,
    subject: Mapping[str, Any] | None = None,
    license_id: str | None = None,
) -> str:
    """Return the card in Markdown, with the Hub's metadata.

    Args:
      run: the exported model.
      data: data.json of its run; empty if it is unknown.
      figures: the figures that `svilm-train evaluate` printed; None: it was not evaluated.
      subject: the run and snapshot of these figures (runs/provenance.py).
      license_id: the license of the weights, as the Hub names it; None: not stated.
    """
    tuned = f", fine-tuned for {run.task['name']}" if run.task else ""
    sections = [
        _metadata(license_id),
        f"# S-ViLM{tuned}\n\n{_summary(run)}",
        _USE,
        _data(data),
        _figures(figures, subject),
        _limits(run, data),
        _license(license_id),
    ]
    return "\n".join(sections)


def _metadata(license_id: str | None) -> str:
    lines = ["---", "library_name: transformers", "pipeline_tag: feature-extraction"]
    lines += [f"license: {license_id}"] if license_id else []
    names = ("svilm", "video-text-retrieval", "sentence-transformers", "custom_code")
    return "\n".join([*lines, "tags:", *(f"- {name}" for name in names), "---", ""])


def _summary(run: Loaded) -> str:
    video, words = run.config.video, run.config.text
    which = "moving average of the parameters" if run.averaged else "parameters"
    return (
        "A dual encoder of videos and texts, trained with the method of S-ViLM ([Xiong et al., "
        "ICLR 2024](https://arxiv.org/abs/2303.16341)): retrieval, noun grounding and temporal "
        "grouping from captions alone.\n\n"
        f"- The {which} of step {run.step:,}, sha256 `{parameters_sha256(run.params)}`.\n"
        f"- Video: {video.layers} layers of width {video.width}, {video.group_tokens} group tokens "
        f"({video.grouping}), {video.frames} frames of {video.resolution}² pixels, tubelets of "
        f"{video.tubelet} frames by {video.patch}² pixels.\n"
        f"- Text: {words.layers} layers of width {words.width}, at most {words.tokens} tokens of "
        f"{words.vocabulary:,} WordPieces.\n"
        f"- Joint space: {run.config.joint_width} dimensions, L2-normalized.\n"
    )


def _data(data: Mapping[str, Any]) -> str:
    places = [name.removesuffix(".records") for name in data if name.endswith(".records")]
    if not places:
        return "## Training data\n\nUnknown: the run has no record of it.\n"
    rows = [
        f"| {data.get(f'{place}.dataset')} | {data[f'{place}.records']:,} "
        f"| `{data.get(f'{place}.inputs_sha256')}` | `{data.get(f'{place}.config_sha256')}` |"
        for place in places
    ]
    started = sorted(name.removeprefix("start.") for name in data if name.startswith("start."))
    lines = [
        "| data set | clips | sha256 of the inputs | sha256 of the build |",
        "|---|---|---|---|",
    ]
    start = f"Initialized from other weights: {', '.join(started)}." if started else ""
    start = start or "Initialized at random."
    return "\n".join(["## Training data", "", *lines, *rows, "", start, ""])


def _figures(figures: str | None, subject: Mapping[str, Any] | None) -> str:
    if figures is None or subject is None:
        return "## Figures\n\nNot evaluated.\n"
    seen = subject.get("seen") or {}
    overlap = f"{seen.get('seen_videos', 0):,} of its {seen.get('videos', 0):,} videos"
    if not seen.get("known"):
        overlap = "unknown whether any of its videos"
    return (
        f"## Figures\n\nOf step {subject['step']:,}, on {subject['records']:,} clips of "
        f"{subject['dataset']} (manifest sha256 `{subject['manifest_sha256']}`). Training saw "
        f"{overlap}.\n\n```\n{figures}\n```\n"
    )


def _limits(run: Loaded, data: Mapping[str, Any]) -> str:
    unknown = (data.get("seen") or {}).get("unknown") or []
    lines = [
        f"- A video is reduced to {run.config.video.frames} frames, spread over its whole length, "
        "and to the central square. Events between frames and at the edges are not seen.",
        f"- Texts are truncated to {run.config.text.tokens} tokens. Their language is that of the "
        "training captions.",
        "- The model inherits the biases of its captions and videos. It was not tested for "
        "decisions about people.",
        "- The processor expects files without damage. `svilm-train embed` finds and reports it.",
    ]
    if run.task is not None and not has_joint_space(run.task):
        lines.append(
            f"- Fine-tuning for {run.task['name']} did not train the joint space: do not compare "
            "texts and videos."
        )
    if unknown:
        lines.append("- It started from weights whose training clips are unknown.")
    return "\n".join(["## Limits", "", *lines, ""])


def _license(license_id: str | None) -> str:
    stated = f"The weights: {license_id}." if license_id else "The weights: not stated."
    return (
        f"## License\n\n{stated} The code in this folder: Apache-2.0, as svilm. The license of the "
        "training data may restrict the use of the weights.\n"
    )
