"""Reason codes of rejects, each with its meaning."""

# All reason codes. The codes are stable, because other programs count them.
REASONS = {
    # stage "read": the row as text
    "row_not_utf8": "the row is not UTF-8",
    "row_too_long": "the row exceeds the maximum length",
    "row_columns": "the row has too few or too many columns",
    "row_quote": "a quoted field has no closing quote",
    "row_stray_quote": "a quoted field has text after its closing quote",
    "row_carriage_return": "the row has a carriage return outside quotes",
    "row_too_deep": "lists or objects are nested too deeply",
    "list_lengths": "a video's lists of times and captions differ in length",
    "file_damaged": "the annotation file is unreadable from this row",
    # stage "plan": the row as a clip
    "video_id_invalid": "the field is neither a video id nor a URL with one",
    "time_invalid": "the start or end is not a finite number",
    "time_negative": "the start is negative",
    "span_empty": "the end is not after the start",
    "caption_empty": "the caption is empty",
    "caption_invalid": "the caption is not text, or contains NUL characters",
    "labels_invalid": "the labels are not a list of texts, or not classes of the data set",
    "question_invalid": "the question has no text, or the answer is not text",
    "segment_invalid": "the labelled span has no label, or does not end after its start",
    "box_invalid": "the box is not within the image, or its label or score is invalid",
    "not_annotated": "the video is listed but not annotated",
    "other_split": "the video belongs to a split other than --subset",
    "excluded_time": "the data set excludes this time",
    "excluded": "dropped by --exclude",
    "clip_too_short": "dropped by --min-clip",
    "clip_too_long": "dropped by --max-clip",
    "caption_too_short": "dropped by --min-words",
    "caption_too_long": "dropped by --max-words",
    "caption_not_ascii": "dropped by --min-ascii",
    "duplicate": "the same video, span and caption as an earlier row",
    "duplicate_differs": "a duplicate with other captions, labels or questions, which are dropped",
    "already_present": "an earlier version of the snapshot has the clip",
    # stage "decode": the clip's video
    "video_missing": "no file in the video folder has this id",
    "video_ambiguous": "several files have this id, in the video map or in the folders of labels",
    "video_empty": "the file is empty",
    "video_not_a_file": "the path is a folder, pipe or device",
    "video_outside_root": "the link or path leads out of the video folder",
    "video_too_large": "the file exceeds --max-video-size and was not downloaded",
    "video_unreadable": "the file cannot be opened or read",
    "video_no_stream": "the file has no video stream",
    "video_undecodable": "the decoder cannot read the file or its frames",
    "video_truncated": "the frames end before the duration that the file states",
    "span_past_end": "too much of the span is past the video's end",
    "decoder_fault": "svilm's own decoder program has a fault, which says nothing of the file",
    "decode_timeout": "decoding exceeded its time limit",
    "decode_limit": "decoding exceeded the limit of frame size, memory or output",
    # stage "filter": what the clip shows
    "clip_static": "dropped by --min-motion",
    # stage "remove": the clip was a record of an earlier version
    "video_removed": "the video was taken down",
}

REMOVED = "video_removed"  # reason of rejects that no build retries
