"""Annotation formats, one module each.

It may import decoding, storage and processes.

FORM        one line: what a row is, for messages and help
OPTIONS     the fields of SourceOptions that it follows; others are refused
SUBSETS     what SourceOptions.subset may be, if it follows that
read()      a file's rows, in order, each as a ClipRequest or a Reject; or, of data sets whose rows
            are told by several files together, all of them small,
read_all()  the rows of all files, given by name, in order
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
