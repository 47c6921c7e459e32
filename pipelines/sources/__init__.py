"""Annotation formats, each a module of one shape.

FORM    one line: what a row is, for messages and help
read()  a file's rows, in order, each as a ClipRequest or a Reject
"""

from pipelines.sources import videocc

SOURCES = {
    "videocc": videocc,
}
