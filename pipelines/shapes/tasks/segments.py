"""Untrimmed videos of *Shapes* in ActivityNet 1.3's and G-TAD's formats.

    activitynet/activity_net.v1-3.json      {"database": …}; test is the subset validation
    activitynet/anet_anno_action.json       the same by "v_<id>", without subsets
    activitynet/video_info_new.csv          the subsets

A segment is a piece of a video in which both objects make one motion. The other pieces show still
objects or no objects.
"""

import json
from collections.abc import Sequence

from pipelines.shapes.scene import Untrimmed

_SUBSETS = {"train": "training", "test": "validation"}
_FEATURE_FRAMES = 16  # number of frames per G-TAD feature


def files(videos: Sequence[Untrimmed]) -> dict[str, str]:
    """Return the texts of the annotation files by their paths in the tasks' folder."""
    database, gtad = {}, {}
    rows = ["video,numFrame,seconds,fps,rfps,subset,featureFrame\n"]
    for video in videos:
        seconds, frames = video.end_us / 1e6, video.frames
        feature_frames = frames // _FEATURE_FRAMES * _FEATURE_FRAMES
        annotations = [
            {"segment": [piece.start_us / 1e6, piece.end_us / 1e6], "label": piece.motion}
            for piece in video.pieces
            if piece.motion
        ]
        subset = _SUBSETS[video.split]
        database[video.video_id] = {
            "subset": subset,
            "duration": seconds,
            "resolution": "64x64",
            "url": "",
            "annotations": annotations,
        }
        name = f"v_{video.video_id}"
        gtad[name] = {
            "duration_second": seconds,
            "duration_frame": frames,
            "annotations": annotations,
            "feature_frame": feature_frames,
        }
        fps = video.pieces[0].clip.format.fps
        rows.append(f"{name},{frames},{seconds},{fps},{fps},{subset},{feature_frames}\n")
    official = {"version": "VERSION 1.3", "taxonomy": [], "database": database}
    return {
        "activitynet/activity_net.v1-3.json": json.dumps(official),
        "activitynet/anet_anno_action.json": json.dumps(gtad),
        "activitynet/video_info_new.csv": "".join(rows),
    }
