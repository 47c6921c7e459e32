"""Annotation formats, each a module of one shape.

FORM     one line: what a row is, for messages and help
OPTIONS  the fields of SourceOptions that it follows; others are refused
read()   a file's rows, in order, each as a ClipRequest or a Reject
"""

from pipelines.sources import activitynet, generic, howto100m, videocc, webvid

SOURCES = {
    "videocc": videocc,
    "activitynet": activitynet,
    "howto100m": howto100m,
    "webvid": webvid,
    "generic": generic,
}
