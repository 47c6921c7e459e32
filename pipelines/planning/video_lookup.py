"""Lookup of a video's file by id: from a file of ids and paths, else from a path template.

Ids and paths are untrusted input: files outside the root folder are never opened.
"""

import collections
import copy
import functools
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

from pipelines.decoding import video_file
from pipelines.decoding.video_file import Failure, Video
from pipelines.sources import annotation_file, lines
from pipelines.sources.clip_request import RowError
from pipelines.storage import storage
from protos.video_id import EXTENSIONS, split_extension, video_key

_USUAL = 6  # number of leading EXTENSIONS that are requested one by one in a bucket
FIELDS = {"video_id", "label", "ext"}  # names allowed in a template's braces
IN_A_FOLDER = "{video_id}.{ext}"  # default template


def split(videos: str) -> tuple[str, str]:
    """Split a folder or template into the root folder and the template of paths in it.

    Raises:
      ValueError: the template has no {video_id}, or a field that is not one of FIELDS.

    >>> split("activitynet/v_{video_id}.{ext}")
    ('activitynet/', 'v_{video_id}.{ext}')
    >>> split("activitynet")
    ('activitynet', '{video_id}.{ext}')
    """
    fields = set(re.findall(r"{(.*?)}", videos))
    if not fields:
        return videos, IN_A_FOLDER
    if "video_id" not in fields or fields - FIELDS:
        raise ValueError(
            "the template's fields are invalid: give {video_id}, optionally {ext} and {label}"
        )
    start = videos.rfind("/", 0, videos.index("{")) + 1
    return videos[:start] or ".", videos[start:]


def read_map(path: str) -> dict[str, set[str]]:
    """Read the paths of each video id from a CSV file with the columns video_id and path.

    Raises:
      OSError: the file cannot be read.
      RowError: a row does not have that form, or the file has no rows.
    """
    paths: dict[str, set[str]] = {}
    with annotation_file.open_to_read(path) as file:
        for number, _, row in lines.table(file):
            try:
                video_id = lines.column(row, "video_id").strip()
                paths.setdefault(video_id, set()).add(lines.column(row, "path").strip())
            except RowError as error:
                raise RowError(error.stage, error.reason, f"line {number}: {error}") from None
    if not paths:
        raise RowError("read", "row_columns", "it has no rows after a header")
    return paths


def listing(videos: str) -> Iterator[tuple[str, str, int]]:
    """Yield (video id, path in the root, bytes) for each file in a bucket that fits the template.

    A file is yielded twice, without and with its extension in the id: annotations use either.

    Raises:
      OSError: the bucket cannot be used.
    """
    root, template = split(videos)
    form = _form(template)
    for path, size in storage.listing(root, template[: template.index("{")]):
        if match := form.fullmatch(path):
            yield match["video_id"], path, size
            extension = split_extension(path)[1]
            if match["video_id"] and extension:
                yield f"{match['video_id']}.{extension}", path, size


def _form(template: str) -> re.Pattern[str]:
    """Return the pattern of a template's paths, which finds a path's only id and extension.

    >>> _form("v_{video_id}.{ext}").fullmatch("v_dQw4w9WgXcQ.webm")["video_id"]
    'dQw4w9WgXcQ'
    """
    fields = {
        "{video_id}": "(?P<video_id>.*)",
        "{label}": "(?P<label>[^/]*)",
        "{ext}": f"(?P<ext>(?i:{'|'.join(EXTENSIONS)}))",
    }
    pattern, seen = "", set()
    for part in re.split(r"({.*?})", template):
        name = part[1:-1]
        pattern += f"(?P={name})" if part in seen else fields.get(part, re.escape(part))
        seen |= {part} & set(fields)
    return re.compile(pattern, re.DOTALL)


class VideoLookup:
    """Lookup of video files by video id."""

    def __init__(self, videos: str, map_path: str = "") -> None:
        """Split the folder or template and read the video map, if any.

        Args:
          videos: folder or template, as for `split`.
          map_path: file of ids and paths, as for `read_map`; empty for none. An id that it does
            not list has the files of the id's other spellings, as in `video_key`.
        """
        self._root, self._template = split(videos)
        self._mapped = read_map(map_path) if map_path else {}
        self._mapped_by_key: dict[str, set[str]] = collections.defaultdict(set)
        for video_id, paths in self._mapped.items():
            self._mapped_by_key[video_key(video_id)] |= paths
        self._listed: Mapping[str, int] | None = None
        self._mixed: tuple[str, ...] = ()  # mixed-case extensions among the listed files

    @property
    def by_label(self) -> bool:
        """Return whether the file of a video depends on its label."""
        return "{label}" in self._template

    def among(self, listed: Mapping[str, int]) -> "VideoLookup":
        """Return a copy that resolves the template in `listed`, without requests to the bucket.

        Args:
          listed: size in bytes by path, of a part of the `listing`.
        """
        other = copy.copy(self)
        other._listed = listed
        other._mixed = _mixed_case(listed)
        return other

    def find(self, video_id: str, label: str = "") -> Video | Failure:
        """Return the video's file, or the reason why it cannot be used.

        Args:
          video_id: the annotated id, which may end with its file's extension.
          label: one of the video's classes; empty for none.
        """
        found = self._find(video_id, label)
        if isinstance(found, Failure) and found.reason == "video_missing":
            for form in ("NFC", "NFD"):
                other = unicodedata.normalize(form, video_id)
                if other != video_id and isinstance(self._find(other, label), Video):
                    return found._replace(
                        message=f"{found.message}; a file's name differs in Unicode normalization "
                        f"alone: write the id in {form}, or name the file in --video-map"
                    )
        return found

    def _find(self, video_id: str, label: str) -> Video | Failure:
        of_key = self._mapped_by_key.get(video_key(video_id), ())
        paths = sorted(self._mapped.get(video_id, of_key))
        if not paths:
            return self._by_template(video_id, label)
        if len(paths) > 1:
            names = ", ".join(repr(os.path.basename(path))[:100] for path in paths[:2])
            return Failure("video_ambiguous", f"{len(paths)} files in the video map: {names}")
        return video_file.at(self._root, paths[0])

    def _by_template(self, video_id: str, label: str) -> Video | Failure:
        if "\0" in label:  # Paths cannot contain NUL.
            return Failure("video_missing", f"no folder {label[:100]!r}")
        asked = storage.in_bucket(self._root) and self._listed is None
        paths = [*dict.fromkeys(self._paths(video_id, label))]
        first = _USUAL + bool(split_extension(video_id)[1])
        for path in paths[:first] if asked else paths:
            found = video_file.at(self._root, path, self._listed)
            if isinstance(found, Video) or found.reason != "video_missing":
                return found
        before = self._template.partition("{ext}")[0]
        if asked and "{video_id}" in before and "{ext}" in self._template:
            return self._in_one_request(video_id, label, before)
        usual = f"{{{','.join(EXTENSIONS[:_USUAL])},…}}"
        return Failure("video_missing", f"no {self._path(video_id, label, usual)}")

    def _in_one_request(self, video_id: str, label: str, before: str) -> Video | Failure:
        """Find a video in a bucket by listing a prefix, instead of a request per extension."""
        try:
            listed = dict(storage.listing(self._root, _filled(before, video_id, label, "")))
        except FileNotFoundError:
            listed = {}
        return self.among(listed)._by_template(video_id, label)

    def _paths(self, video_id: str, label: str) -> Iterator[str]:
        """Yield the candidate paths of a video, in the order in which they are tried."""
        stem, own = split_extension(video_id)
        if own and "{ext}" in self._template:
            yield self._path(stem, label, own)
        for extension in (*EXTENSIONS, *map(str.upper, EXTENSIONS)):
            yield self._path(video_id, label, extension)
        if "{ext}" in self._template:
            path = self._path(video_id, label, EXTENSIONS[0])
            for extension in self._mixed or self._mixed_in(os.path.dirname(path)):
                yield self._path(video_id, label, extension)
        if own:
            yield self._path(stem, label, own)

    def _mixed_in(self, folder: str) -> tuple[str, ...]:
        if storage.in_bucket(self._root):
            return ()
        return _mixed_case_in(os.path.join(self._root, folder))

    def _path(self, video_id: str, label: str, extension: str) -> str:
        return _filled(self._template, video_id, label, extension)


def _mixed_case(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the video extensions in mixed case, neither all lower nor all upper.

    >>> _mixed_case(["a.Mp4", "b.MP4", "c/d.mKv", "e.Txt"])
    ('Mp4', 'mKv')
    """
    found = {split_extension(path)[1] for path in paths}
    return tuple(sorted(one for one in found if one not in (one.lower(), one.upper())))


@functools.lru_cache(1024)
def _mixed_case_in(folder: str) -> tuple[str, ...]:
    try:
        return _mixed_case(os.listdir(folder))
    except (OSError, ValueError):  # a missing folder, or an invalid folder name
        return ()


def _filled(template: str, video_id: str, label: str, extension: str) -> str:
    values = {"ext": extension, "label": label, "video_id": video_id}
    return re.sub(r"{(.*?)}", lambda field: values[field[1]], template)
