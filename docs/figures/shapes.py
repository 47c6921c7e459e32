"""Pictures of clips of *Shapes*, rendered here: cut-and-paste, and the places of nouns."""

import numpy as np
from PIL import Image, ImageDraw

from pipelines.shapes import render, scene

_SCALE = 3  # screen pixels of a rendered one
_COLOURS = ((31, 119, 180), (214, 90, 20))  # foreground, background
_NOUNS = ((255, 0, 200), (0, 255, 255))  # outlines of the two nouns' boxes, unlike any object
_GAP = 3


def _clips() -> tuple[scene.Clip, scene.Clip]:
    """Return two test clips of different families, whose captions have few words in common."""
    clips = scene.sample_clips("test", 12, seed=0)
    return clips[0], clips[6]


def _enlarged(frame: np.ndarray, side: int) -> Image.Image:
    return Image.fromarray(frame).resize((side, side), Image.Resampling.NEAREST)


def cut_and_paste() -> Image.Image:
    """Draw frames of two clips, and the clip that cut-and-paste makes of them.

    The splice has 6 windows of 2 frames: the foreground is windows 1 to 4.
    """
    import jax.numpy as jnp

    from trainer.method import cut_and_paste as method

    first, second = (render.frames(clip) for clip in _clips())
    every = np.linspace(0, len(first) - 1, 12).astype(int)
    both = np.stack([first[every], second[every]])
    mask = method.foreground_mask(jnp.array([1, 0]), jnp.array([4, 6]), windows=6)
    splice = method.Splice(jnp.array([1, 0]), mask, jnp.array([4 / 6, 1.0]))
    spliced = np.asarray(method.paste(jnp.asarray(both), splice))[0]
    inside = np.repeat(np.asarray(mask[0]), 2)

    side, line = 72, 22
    width = 12 * (side + _GAP) + _GAP
    sheet = Image.new("RGB", (width, 3 * (side + line + _GAP) + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    rows = (
        ("foreground clip, v_i", both[0], np.ones(12, bool)),
        ("background clip, another of the batch", both[1], np.zeros(12, bool)),
        (
            "spliced: windows 1 to 4 of the foreground, the others of the background",
            spliced,
            inside,
        ),
    )
    for number, (title, frames, foreground) in enumerate(rows):
        top = number * (side + line + _GAP) + _GAP
        draw.text((_GAP, top + 3), title, fill="black", font_size=13)
        for place, frame in enumerate(frames):
            left, upper = _GAP + place * (side + _GAP), top + line
            colour = _COLOURS[0 if foreground[place] else 1]
            draw.rectangle((left - 2, upper - 2, left + side + 1, upper + side + 1), fill=colour)
            sheet.paste(_enlarged(frame, side), (left, upper))
    return sheet.quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def grounding() -> list[Image.Image]:
    """Draw the true boxes of the two nouns of a caption, frame by frame.

    They are the corpus's ground truth, against which pointing is scored, not a model's answer.
    """
    clip = _clips()[0]
    boxes = render.boxes(clip)
    pictures = []
    for number, frame in enumerate(render.frames(clip)):
        side = frame.shape[0] * _SCALE
        picture = Image.new("RGB", (side, side + 40), "white")
        picture.paste(_enlarged(frame, side), (0, 0))
        draw = ImageDraw.Draw(picture)
        for place, thing in enumerate(clip.things):
            line = side + 4 + 18 * place
            draw.rectangle((5, line + 2, 15, line + 12), fill=_NOUNS[place], outline="black")
            draw.text((21, line), thing.words.phrase, fill="black", font_size=12)
            if (found := boxes[place][number]) is not None:
                edges = [_SCALE * edge for edge in found]
                draw.rectangle(edges, outline=_NOUNS[place], width=2)
        pictures.append(picture.quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))
    return pictures
