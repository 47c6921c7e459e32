"""Readers of annotation formats, one module each.

The package may import `decoding`, `storage` and `processes`. Each module of a format defines:

FORM        a one-line description of the format, for messages and help texts
OPTIONS     the supported fields of SourceOptions; other fields raise an error
SUBSETS     the values of SourceOptions.subset, if supported
read()      yields a file's rows in order, each as a ClipRequest or a Reject
read_all()  replaces read() where rows combine several small files: takes all files' bytes by name
            and yields their rows in order
"""

from types import ModuleType

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

SOURCES: dict[str, ModuleType] = {
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
