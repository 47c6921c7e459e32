"""The report's pictures of structure: patches of nouns, windows of splices, group usage."""

import collections
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from trainer.evaluation import grounding, temporal
from trainer.inference.encoder import Encoder, frames_of
from trainer.report import drawing
from trainer.report.context import Subject
from trainer.report.drawing import Bar, escape
from trainer.tasks.zero_shot import fresh_encoder, true_objects

_NOUN_CLIPS, _SPLICES = 6, 2
_SPLICE_SEED = 0

_NOUN_KEY = (
    '<span><i class="mark edge"></i>patches of the noun’s group</span>'
    '<span><i class="mark target"></i>its top patch</span>'
)
_TRUTH_KEY = '<span><i class="mark truth"></i>the object (ground truth)</span>'


def nouns(subject: Subject) -> str:
    """Return the HTML of some clips' nouns, each with the patches of its group (Figure 4)."""
    config = subject.run.config
    video = config.video
    view = grounding.View(config, subject.test.manifest.config.frames_per_clip)
    records = sorted(subject.draw(_NOUN_CLIPS, purpose=2))
    phrases, embedded = subject.nouns()
    starts = np.cumsum([0, *(len(text.nouns) for text in subject.texts)])
    frames = frames_of(subject.test, records, config)
    middle = np.arange(video.windows) * video.tubelet + video.tubelet // 2
    cards = []
    for place, record in enumerate(records):
        text = subject.texts[record]
        truth = {}
        if subject.truth is not None:
            things = true_objects(text, subject.truth)
            truth = {thing.phrase: thing.masks for thing in things}
        rows = []
        for noun in range(starts[record], starts[record + 1]):
            rows.append(
                _noun(
                    subject,
                    record,
                    phrases[noun],
                    embedded[noun],
                    frames[place][middle],
                    truth.get(phrases[noun]),
                    view,
                )
            )
        rows = rows or ['<p class="none">The caption has no noun.</p>']
        cards.append(f'<div class="card clip"><p>“{escape(text.caption)}”</p>{"".join(rows)}</div>')
    key = _NOUN_KEY + ("" if subject.truth is None else _TRUTH_KEY)
    return drawing.section(
        "Noun grounding",
        "For each noun of a caption, the patches assigned to the group most similar to the noun, "
        "over one frame per window in temporal order. The circle marks the patch with the highest "
        "assignment.",
        f'<div class="key">{key}</div>' + "".join(cards),
        subject.of,
    )


def _noun(
    subject: Subject,
    record: int,
    phrase: str,
    noun: Float[np.ndarray, " e"],
    frames: UInt8[np.ndarray, "nt h w c"],
    masks: Any,
    view: grounding.View,
) -> str:
    video = subject.run.config.video
    side = video.resolution // video.patch
    clips = subject.clips
    group = grounding.nearest_group(clips.groups[record], noun)
    cosine = float(clips.groups[record, group] @ noun)
    token = grounding.pointed_token(group, clips.group_of[record], clips.share[record])
    mask = (clips.group_of[record] == group).reshape(video.windows, side, side)
    overlay, verdict = drawing.claimed(mask), ""
    if masks is not None:
        seen = view.visible(masks)[np.arange(video.windows) * video.tubelet + video.tubelet // 2]
        overlay += "".join(drawing.box(window, of_frame) for window, of_frame in enumerate(seen))
    if token is None:
        verdict = '<span class="miss">the group is empty</span>'
    else:
        point = grounding.point_of(token, subject.run.config)
        overlay += drawing.target(point)
        if masks is not None:
            hit = grounding.hit(point, masks, view)
            verdict = (
                '<span class="hit">✓ on the object</span>'
                if hit >= 0.5
                else '<span class="miss">✗ off the object</span>'
            )
    return (
        f'<div class="noun"><b>{escape(phrase)}</b><span class="soft">group {group + 1} · cosine '
        f"{cosine:.2f} · {100 * mask.mean():.0f} % of the patches</span>{verdict}</div>"
        + drawing.strip(frames, overlay, f"patches assigned to {phrase!r}")
    )


# --- temporal grouping ---


def splices(subject: Subject) -> str:
    """Return the HTML of some spliced clips and their window similarities (Figures 2, 5)."""
    video = subject.run.config.video
    records = subject.draw(2 * _SPLICES, purpose=3)
    frames = frames_of(subject.test, records, subject.run.config)
    half = len(records) // 2
    masks = temporal.draw_masks(half, video.windows, seed=_SPLICE_SEED)
    spliced = temporal.splice(frames[:half], frames[half : 2 * half], masks)
    rivals = {"this run": subject.encoder}
    if subject.control is not None:
        control = subject.control
        rivals["without the temporal loss"] = Encoder(
            control.config, control.tokenizer, control.params
        )
    rivals["untrained"] = fresh_encoder(subject.run)
    features = {name: rival.clips(spliced).windows for name, rival in rivals.items()}
    own = temporal.own_side(features["this run"], masks)
    middle = np.arange(video.windows) * video.tubelet + video.tubelet // 2
    cards = []
    for place, mask in enumerate(masks):
        tables = {
            name: temporal.similarity_matrix(of_all[place]) for name, of_all in features.items()
        }
        low = min(float(table.min()) for table in tables.values())
        drawn = "".join(
            f"<figure>{drawing.matrix(table, mask, low)}<figcaption><b>{name}</b>"
            f"{table.min():.2f} … 1</figcaption></figure>"
            for name, table in tables.items()
        )
        sides = "".join(
            f'<div class="{"pasted" if pasted else "around"}"><i></i>'
            f'<span class="{"good" if right == 1 else "bad"}">{"✓" if right == 1 else "✗"}</span>'
            "</div>"
            for pasted, right in zip(mask, own[place], strict=True)
        )
        cards.append(
            f'<div class="card clip">{drawing.strip(spliced[place][middle], "", "a spliced clip")}'
            f'<div class="sides">{sides}</div><div class="matrices">{drawn}</div></div>'
        )
    return drawing.section(
        "Spliced clips",
        "One frame per window of a clip pasted into another. The coloured bar marks the pasted "
        "windows; ✓ marks windows that are more similar to their own side. Below, the cosine "
        "similarity of each pair of windows, on one scale: strong colour means similar. Two clips "
        "should appear as two blocks.",
        "".join(cards),
        subject.of + _control(subject),
    )


def _control(subject: Subject) -> str:
    """Return the caption that names the run without the temporal loss. Empty without one."""
    control = subject.control
    if control is None or control.folder is None:
        return ""
    return f" Without the temporal loss: {control.folder}, step {control.step:,}."


# --- groups ---


def groups(subject: Subject) -> str:
    """Return the HTML of each group's patches and nouns over all test clips."""
    video = subject.run.config.video
    side = video.resolution // video.patch
    phrases, embedded = subject.nouns()
    starts = np.cumsum([0, *(len(text.nouns) for text in subject.texts)])
    answered: dict[int, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for record in range(len(subject.texts)):
        for noun in range(starts[record], starts[record + 1]):
            group = grounding.nearest_group(subject.clips.groups[record], embedded[noun])
            answered[group][phrases[noun]] += 1
    of_groups = np.stack([subject.clips.group_of == group for group in range(video.group_tokens)])
    usage = of_groups.mean(axis=(1, 2))
    nouns = np.array([answered[group].total() for group in range(video.group_tokens)])
    nouns = nouns / max(nouns.sum(), 1)
    where = of_groups.reshape(video.group_tokens, -1, video.windows, side, side).mean(axis=(1, 2))
    cards = []
    for group in range(video.group_tokens):
        rows = [
            Bar("patches", usage[group], drawing.percent(float(usage[group])), ours=True),
            Bar("nouns", nouns[group], drawing.percent(float(nouns[group]))),
        ]
        often = ", ".join(phrase for phrase, _ in answered[group].most_common(5))
        cards.append(
            f'<div class="card group"><img src="{_heat(where[group])}" '
            f'alt="heat map of the patches of group {group + 1}" width="{side}" '
            f'height="{side}"><div><h3>Group {group + 1}</h3>{drawing.bars(rows, 1.0)}'
            f"<p>{escape(often) or 'similar to no noun'}</p></div></div>"
        )
    return drawing.section(
        "Group usage",
        "Each group's share of all patches and of all nouns of the test clips, a heat map of its "
        "patches, and the nouns most often closest to it.",
        f'<div class="groups">{"".join(cards)}</div>',
        subject.of,
    )


def _heat(share: Float[np.ndarray, "rows columns"]) -> str:
    """Return a picture in the style sheet's accent colour, more opaque for higher shares."""
    pixels = np.zeros((*share.shape, 4), np.uint8)
    pixels[..., :3] = (217, 72, 43)
    pixels[..., 3] = np.round(255 * share / max(float(share.max()), 1e-9))
    return drawing.picture(pixels, lossless=True)
