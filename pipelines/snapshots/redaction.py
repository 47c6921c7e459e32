"""Removed videos, of which a snapshot keeps only the ids, in its manifest.

A reject may contain a video's caption, id or row without a video id of its own. So its text is
searched as well. A text that names a removed video is dropped, and so is a truncated text, whose
lost part may name one. All spellings of an id denote the same video (`video_key`).
"""

import collections
import functools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus, unquote

from pipelines.snapshots import records
from pipelines.sources.clip_request import ROW_CHARACTERS, reject
from pipelines.sources.reject_reasons import REMOVED
from protos.v1.manifest_pb2 import AnnotationFile, Manifest, Reject, ShardSummary
from protos.video_id import video_key

_WORD = re.compile(r"[\w-]+")
_BEFORE = re.compile(r"(?:^|[^\w-])(?:v_)?$")  # ActivityNet's ids have the prefix "v_".
_AFTER = re.compile(r"(?![\w-])")
_LONG = 11  # characters; spellings of at least this length also match within words
_ENCODED = 3  # maximum levels of encoding, such as JSON within JSON
_ESCAPES = re.compile(r"(?:\\u[0-9A-Fa-f]{4})+|\\.", re.DOTALL)
_FILE = "(removed)"  # replacement for an annotation file's name that is a removed video's id
_DROPPED = "the text of this row was dropped, as a removed video's may be part of it"


class Redaction:
    """A set of removed videos, with methods that find and remove their traces."""

    def __init__(self, video_ids: Iterable[str]) -> None:
        self.video_ids = frozenset(video_ids)
        self._by_key: dict[str, set[str]] = collections.defaultdict(set)
        # Spellings are indexed by their first characters or their first word, so that one pass
        # over a text finds all ids.
        self._by_start: dict[str, list[tuple[str, str]]] = collections.defaultdict(list)
        self._by_word: dict[str, list[tuple[str, int, str]]] = collections.defaultdict(list)
        self._wordless: list[tuple[str, str]] = []
        for video_id in self.video_ids:
            self._by_key[video_key(video_id)].add(video_id)
            for spelling in _spellings(video_id) | _spellings(video_key(video_id)):
                if len(spelling) >= _LONG:
                    self._by_start[spelling[:_LONG]].append((spelling, video_id))
                elif word := _WORD.search(spelling):
                    self._by_word[word[0]].append((spelling, word.start(), video_id))
                else:
                    self._wordless.append((spelling, video_id))

    def ids_of(self, video_id: str) -> frozenset[str]:
        """Return the removed ids that denote a video, or an empty set if it was not removed.

        >>> sorted(Redaction(["a", "a.mp4", "b"]).ids_of("a.webm")), Redaction(["a"]).ids_of("ab")
        (['a', 'a.mp4'], frozenset())
        """
        return frozenset(self._by_key.get(video_key(video_id), ()))

    def named_in(self, text: str) -> set[str]:
        """Return the removed videos whose ids occur in a text.

        Short ids match whole words only. Long ids also match within words: dropping a harmless
        reject's text is better than keeping a trace.

        >>> Redaction(["a-1"]).named_in("https://youtu.be/a-1,0,9"), Redaction(["a"]).named_in("ab")
        ({'a-1'}, set())
        """
        return set[str]().union(*map(self._written_in, _decoded(text))) if self.video_ids else set()

    def _written_in(self, text: str) -> set[str]:
        """Return the removed videos of which a spelling occurs in a text, without decoding it."""
        found = {video_id for spelling, video_id in self._wordless if spelling in text}
        if self._by_start:
            for start in range(len(text) - _LONG + 1):
                for spelling, video_id in self._by_start.get(text[start : start + _LONG], ()):
                    if text.startswith(spelling, start):
                        found.add(video_id)
        if self._by_word:
            for word in _WORD.finditer(text):
                for part in {word[0], word[0].removeprefix("v_")}:
                    for spelling, offset, video_id in self._by_word.get(part, ()):
                        start = word.end() - len(part) - offset
                        end = start + len(spelling)
                        if (
                            start >= 0
                            and text.startswith(spelling, start)
                            and _BEFORE.search(text, max(0, start - 3), start)
                            and _AFTER.match(text, end)
                        ):
                            found.add(video_id)
        return found

    def named_by(self, one: Reject) -> set[str]:
        """Return the removed videos of a reject's video id or, if it has none, of its texts."""
        if one.video_id:
            return set(self.ids_of(one.video_id))
        return self.named_in(one.message) | self.named_in(one.row)

    def scrubbed(self, one: Reject) -> Reject:
        """Return a reject without traces of removed videos, except in its `source_row`."""
        if not self.video_ids or (one.reason == REMOVED and not one.video_id):
            return one
        if one.video_id and self.ids_of(one.video_id):
            return reject("remove", REMOVED, "taken down", source_row=one.source_row)
        cut = not one.video_id and len(one.row) >= ROW_CHARACTERS
        if cut or self._in_its_file(one) or self.named_in(one.message) or self.named_in(one.row):
            kept = Reject()
            kept.CopyFrom(one)
            kept.message, kept.row = _DROPPED, ""
            return kept
        return one

    def hidden(self, one: Reject) -> Reject:
        """Return a scrubbed reject, hiding a file name in `source_row` that is a removed id."""
        if not self._in_its_file(one):
            return one
        kept = Reject()
        kept.CopyFrom(one)
        kept.source_row = f"{_FILE}:{one.source_row.rpartition(':')[2]}"
        return kept

    def rejects(self, found: Iterable[Reject]) -> Iterator[Reject]:
        """Yield each reject, `scrubbed` and `hidden`."""
        return (self.hidden(self.scrubbed(one)) for one in found)

    def touches(self, summary: ShardSummary) -> bool:
        """Return whether a shard's summary holds traces of a removed video."""
        return any(self.ids_of(video.video_id) for video in summary.videos) or any(
            self.hidden(self.scrubbed(one)) != one for one in summary.rejects
        )

    def annotations(self, files: Iterable[AnnotationFile]) -> list[AnnotationFile]:
        """Return the annotation files, hiding file names that are removed ids.

        HowTo100M's CSV files are left out: each holds one video and may be deleted with it.
        """
        kept = []
        for file in files:
            if not self.ids_of(stem := _stem(file.name)):
                kept.append(file)
            elif not re.fullmatch(r"[A-Za-z0-9_-]{11}", stem):
                kept.append(AnnotationFile(name=_FILE, bytes=file.bytes, sha256=file.sha256))
        return kept

    def _in_its_file(self, one: Reject) -> bool:
        """Return whether a reject has no video id, and its file's name is a removed id."""
        stem = _stem(one.source_row.rpartition(":")[0])
        return not one.video_id and bool(stem and self.ids_of(stem))


@functools.lru_cache(maxsize=2)
def redaction_of(video_ids: frozenset[str]) -> Redaction:
    """Return the Redaction of these ids, cached because each shard of a build needs it."""
    return Redaction(video_ids)


def removed_videos(folder: str, manifest: Manifest) -> frozenset[str]:
    """Return the videos that were removed from a snapshot or from its previous versions.

    Snapshots of earlier releases have no such list, so the ids come from their rejects.

    Raises:
      SnapshotError: a file of the snapshot is missing or damaged.
    """
    if manifest.removed_videos or not manifest.counts.rejects.get(REMOVED):
        return frozenset(manifest.removed_videos)
    found = (one for one in records.rejects(folder, manifest) if one.reason == REMOVED)
    return frozenset(one.video_id for one in found if one.video_id)


def _stem(file: str) -> str:
    """Return an annotation file's name without its extension and compression suffix.

    >>> _stem("dQw4w9WgXcQ.csv.gz"), _stem("a.b.json")
    ('dQw4w9WgXcQ', 'a.b')
    """
    return re.sub(r"\.(gz|zst|bz2|xz)$", "", file).rpartition(".")[0]


def _spellings(video_id: str) -> set[str]:
    r"""Return the forms in which texts of rows and messages may write an id.

    >>> sorted(_spellings('a"b'))
    ['a""b', 'a"b', 'a%22b', 'a\\"b']
    """
    # Messages keep the first 100 characters of an id, and a row's text may end within an id.
    return {
        video_id,
        video_id[:100],
        video_id.replace('"', '""'),
        json.dumps(video_id)[1:-1],
        json.dumps(video_id, ensure_ascii=False)[1:-1],
        repr(video_id)[1:-1],
        quote(video_id, safe=""),
        quote_plus(video_id),
    }


def _decoded(text: str) -> set[str]:
    r"""Return a text with its decoded forms: without percent-encoding, unescaped, and in NFC.

    >>> sorted(_decoded("a%3Db")), sorted(_decoded(r"a\nb"))
    (['a%3Db', 'a=b'], ['a\nb', 'a\\nb'])
    """
    found = {text}
    for _ in range(_ENCODED):
        found |= {decode(one) for one in found for decode in (unquote, _unescaped)}
    return found | {unicodedata.normalize("NFC", one) for one in found}


def _unescaped(text: str) -> str:
    r"""Return a text with JSON escapes decoded and the backslashes of other escapes removed.

    >>> _unescaped(r"a\n\u00e9\ud83d\ude00\x")
    'a\né😀x'
    """

    def read(escapes: re.Match[str]) -> str:
        known = len(escapes[0]) > 2 or escapes[0][1] in '"\\/bfnrt'
        return json.loads(f'"{escapes[0]}"') if known else escapes[0][1]

    return _ESCAPES.sub(read, text)
