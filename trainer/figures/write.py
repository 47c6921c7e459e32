"""The writer of a run's figures, with a record of their clips.

A folder of figures, with clips numbered by their index in the snapshot:

  nouns-00012.png   heat maps of a clip's nouns over some of its frames
  nouns-00012.gif   the same over all frames, as a film: the clip itself, then one copy per noun
  windows.png       window similarities of spliced clips, by one run or two
  groups.png        each group's share of patches and of nouns
  figures.json      the clips and nouns of the figures, the runs and the snapshot

Figures of an earlier call are removed first, so that all files are of one call.
"""

import json
import pathlib

import numpy as np
from jaxtyping import Float, UInt8

from protos import contract
from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.data.types import Progress
from trainer.evaluation import temporal
from trainer.evaluation.grounding import heat_map
from trainer.figures import heatmap, usage, windows
from trainer.inference.encoder import Encoder, frames_in_batches
from trainer.runs.checkpoint import Loaded
from trainer.runs.provenance import parameters_sha256
from trainer.tasks.zero_shot import check_clips

_SEED = 0  # for the drawn clips and the splices
_SPLICES = 4
_FILES = ("figures.json", "windows.png", "groups.png", "nouns-[0-9]*.png", "nouns-[0-9]*.gif")


def sample_records(snapshot: Snapshot, count: int) -> list[int]:
    """Return records drawn at random, always the same for a snapshot, in ascending order."""
    count = min(count, len(snapshot))
    records = np.random.default_rng(_SEED).choice(len(snapshot), count, replace=False)
    return sorted(records.tolist())


def find_records(snapshot: Snapshot, clip_ids: list[str]) -> list[int]:
    """Return the records of the named clips, each once, in the order given.

    Raises:
      SnapshotError: the snapshot lacks one of the clips.
    """
    ids = snapshot.clip_ids(np.arange(len(snapshot)))
    place = {clip_id: record for record, clip_id in enumerate(ids)}
    if unknown := [clip_id for clip_id in clip_ids if clip_id not in place]:
        raise SnapshotError(
            f"{snapshot.folder} has no clip {unknown[0]!r}: svilm-pipelines inspect lists its ids"
        )
    return [place[clip_id] for clip_id in dict.fromkeys(clip_ids)]


def write(
    runs: dict[str, Loaded],
    snapshot: Snapshot,
    records: list[int],
    nouns: tuple[str, ...],
    out: pathlib.Path,
    progress: Progress,
) -> list[pathlib.Path]:
    """Write all figures and return their files.

    Args:
      runs: runs by name. The first is drawn. If there is a second, windows.png
        compares the two.
      snapshot: the snapshot of the clips.
      records: the clips, as indices in the snapshot.
      nouns: nouns to locate in every clip. Empty takes those of each clip's caption.
      out: the folder, created if missing.
      progress: called with the clips done and their total after each batch.

    Raises:
      EvaluationError: the two runs see clips differently.
      SnapshotError: a record is damaged, or the snapshot does not suit the model.
    """
    first, *others = runs.values()
    for other in others:
        check_clips(first, other)
    encoders = {name: Encoder(run.config, run.tokenizer, run.params) for name, run in runs.items()}
    encoder, video = next(iter(encoders.values())), first.config.video
    out.mkdir(parents=True, exist_ok=True)
    for earlier in [path for pattern in _FILES for path in out.glob(pattern)]:
        earlier.unlink()
    files: list[pathlib.Path] = []
    told, held, groups, asked = [], [], [], []
    drawn, *beside = [
        {
            "run": name,
            "step": run.step,
            "parameters_sha256": parameters_sha256(run.params),
        }
        for name, run in runs.items()
    ]
    of = drawn | {"snapshot": snapshot.folder, "manifest_sha256": snapshot.manifest_sha256}
    if beside:
        of["beside"] = beside[0]
    spliceable: list[UInt8[np.ndarray, "t r r 3"]] = []
    where = np.asarray(records, np.int64)
    for frames, texts in frames_in_batches(snapshot, encoder, progress, where):
        clips = encoder.clips(frames)
        for place, text in enumerate(texts):
            record = records[len(told)]
            phrases = nouns or text.nouns
            embedded = _embed(encoder, phrases)
            maps = [
                heat_map(
                    clips.groups[place], clips.group_of[place], clips.share[place], noun, video
                )
                for noun in embedded
            ]
            picture, film = (out / f"nouns-{record:05d}.{kind}" for kind in ("png", "gif"))
            heatmap.still(text.caption, frames[place], phrases, maps).savefig(picture)
            seconds = (text.end_us - text.start_us) / 1e6
            heatmap.save_film(heatmap.film(frames[place], maps), seconds, film)
            files += [picture, film]
            told.append({"record": record, "clip_id": text.clip_id, "nouns": phrases} | of)
            held.append(clips.group_of[place])
            groups.append(clips.groups[place])
            asked.append(embedded)
            if len(spliceable) < 2 * _SPLICES:
                spliceable.append(frames[place].copy())
    if len(spliceable) > 1 and video.windows >= 2:
        half = len(spliceable) // 2
        mask = temporal.draw_masks(half, video.windows, _SEED)
        pasted, around = np.stack(spliceable[:half]), np.stack(spliceable[half : 2 * half])
        files.append(out / "windows.png")
        windows.similarities(temporal.splice(pasted, around, mask), mask, encoders).savefig(
            files[-1]
        )
    files.append(out / "groups.png")
    usage.usage(
        usage.patch_shares(np.stack(held), video.group_tokens),
        usage.noun_shares(np.stack(groups), asked),
        len(told),
    ).savefig(files[-1])
    files.append(out / "figures.json")
    files[-1].write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return files


def _embed(encoder: Encoder, nouns: tuple[str, ...]) -> Float[np.ndarray, "k e"]:
    if not nouns:
        return np.zeros((0, encoder.config.joint_width), np.float32)
    return encoder.texts([contract.PROMPT_TEMPLATES[0].format(noun) for noun in nouns])
