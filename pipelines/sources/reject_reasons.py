"""Reason codes of rejects, each with its meaning."""

# All reason codes. The codes are stable, because other programs count them.
REASONS = {
    # stage "read": the row as text
    "row_not_utf8": "the row is not UTF-8",
    "row_too_long": "the row is longer than a row can be",
    "row_columns": "the row lacks a column, or has one too many",
    "row_quote": "a quoted field is not closed, neither on its line nor on the next ones",
    "row_stray_quote": "a quoted field has text after its closing quote",
    "row_carriage_return": "a carriage return stands in the line, outside quotes",
    "row_too_deep": "lists or objects within one another, deeper than any annotation",
    "list_lengths": "a video's lists of times and captions differ in length",
    "file_damaged": "the annotation file cannot be read from this place on",
    # stage "plan": the row as a clip
    "video_id_invalid": "neither a video id nor an address that holds one",
    "time_invalid": "a start or end that is no number, or not a finite one",
    "time_negative": "a start before the video's beginning",
    "span_empty": "the end is not after the start",
    "caption_empty": "no caption",
    "caption_invalid": "a caption that is no text, or with NUL characters",
    "labels_invalid": "labels that are no list of texts, or not the data set's",
    "question_invalid": "a question without text, or an answer that is no text",
    "segment_invalid": "a labelled span that is not from a start to an end, or has no label",
    "box_invalid": "a box that is not within its picture, or a label or score that is none",
    "not_annotated": "listed but not annotated",
    "other_split": "belongs to a split other than --subset",
    "excluded_time": "an instant that the data set itself excludes",
    "excluded": "dropped by --exclude",
    "clip_too_short": "dropped by --min-clip",
    "clip_too_long": "dropped by --max-clip",
    "caption_too_short": "dropped by --min-words",
    "caption_too_long": "dropped by --max-words",
    "caption_not_ascii": "dropped by --min-ascii",
    "duplicate": "the same video, span and caption as an earlier row",
    "duplicate_differs": "such a row whose other captions, labels or questions are lost with it",
    # stage "decode": the clip's video
    "video_missing": "no file of that id in the video folder",
    "video_ambiguous": "several files have that id, in the video map or in the folders of labels",
    "video_empty": "a file of no bytes",
    "video_not_a_file": "a folder, pipe or device in the video's place",
    "video_outside_root": "a link or path that leads out of the video folder",
    "video_too_large": "larger than --max-video-size, so it was not fetched",
    "video_unreadable": "the file cannot be opened or read",
    "video_no_stream": "the file has no video stream",
    "video_undecodable": "ffmpeg cannot read the file or decode its frames",
    "video_truncated": "the frames end before the length that the file states",
    "span_past_end": "too much of the span is after the video's end",
    "decode_timeout": "decoding took longer than its time limit",
    "decode_limit": "larger frames, or more memory or output, than decoding may use",
    # stage "filter": what the clip shows
    "clip_static": "dropped by --min-motion",
    # stage "remove": the clip was a record of an earlier version
    "video_removed": "the video was taken down",
}

REMOVED = "video_removed"  # reason of rejects that no build retries
