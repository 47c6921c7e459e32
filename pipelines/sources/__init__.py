"""Readers of annotation formats, one module each, which implement an interface of source.py.

The package may import `decoding`, `storage` and `processes`.
"""

from pipelines.sources import (
    activitynet,
    activitynet_tal,
    ava,
    generic,
    hmdb51,
    howto100m,
    msrvtt,
    msrvtt_qa,
    msvd,
    msvd_qa,
    ucf101,
    videocc,
    webvid,
)
from pipelines.sources.source import Source

SOURCES: dict[str, Source] = {
    "videocc": videocc,
    "activitynet": activitynet,
    "howto100m": howto100m,
    "webvid": webvid,
    "msrvtt": msrvtt,
    "msvd": msvd,
    "msrvtt-qa": msrvtt_qa,
    "msvd-qa": msvd_qa,
    "ucf101": ucf101,
    "hmdb51": hmdb51,
    "activitynet-tal": activitynet_tal,
    "ava": ava,
    "generic": generic,
}
