"""Statistics of a snapshot's records and rejects."""

import collections
import dataclasses
import re
from collections.abc import Iterable, Sequence

from protos.reading import reading
from protos.v1.clip_pb2 import Clip
from protos.v1.manifest_pb2 import Reject

_EXAMPLES = 3  # examples per reason


@dataclasses.dataclass
class RecordStatistics:
    """Statistics of the records read, with one value per record in each list."""

    seconds: list[float] = dataclasses.field(default_factory=list)
    words: list[int] = dataclasses.field(default_factory=list)
    nouns: list[int] = dataclasses.field(default_factory=list)
    frame_bytes: list[int] = dataclasses.field(default_factory=list)
    sizes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    phrases: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    captions: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def add(self, clip: Clip) -> None:
        """Add a record to the statistics."""
        self.seconds.append((clip.end_us - clip.start_us) / 1e6)
        self.words.append(len(clip.caption.split()))
        self.nouns.append(len(clip.noun_chunks))
        self.frame_bytes.append(sum(map(len, clip.frames)) // max(len(clip.frames), 1))
        self.sizes[f"{clip.width}×{clip.height}"] += 1
        # Sorting makes the order of equally frequent phrases deterministic.
        self.phrases.update(sorted({reading(chunk.text)[0].lower() for chunk in clip.noun_chunks}))
        self.captions[plain(clip.caption)] += 1

    @property
    def near_duplicates(self) -> int:
        """Number of records that share their caption, ignoring case, punctuation and spaces."""
        return sum(count for count in self.captions.values() if count > 1)


@dataclasses.dataclass
class Reason:
    """The number of rejects of one reason, and the first few as examples."""

    count: int = 0
    examples: list[Reject] = dataclasses.field(default_factory=list)


def plain(caption: str) -> str:
    """Return a caption's normalized words, which are equal for near duplicates.

    >>> plain("A man, smiling.")
    'a man smiling'
    """
    return " ".join(re.findall(r"\w+", caption.casefold()))


def by_reason(rejects: Iterable[Reject]) -> dict[str, Reason]:
    """Count rejects and collect examples by reason, with the most frequent reason first.

    >>> by_reason([Reject(reason="duplicate"), Reject(reason="duplicate")])["duplicate"].count
    2
    """
    reasons: dict[str, Reason] = collections.defaultdict(Reason)
    for reject in rejects:
        reason = reasons[reject.reason]
        reason.count += 1
        if len(reason.examples) < _EXAMPLES:
            reason.examples.append(reject)
    return dict(sorted(reasons.items(), key=lambda item: (-item[1].count, item[0])))


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of all values do not exceed.

    >>> quantile([4, 1, 3, 2], 0.5)
    2
    """
    return sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]


def histogram(values: Sequence[float], bins: int = 20) -> list[tuple[float, float, int]]:
    """Return bins of equal width from the minimum to the maximum, with the count of each bin.

    Bins are [from, to), except that the last includes its end. Whole numbers of a narrow range get
    one bin each.

    >>> histogram([1, 1, 3])
    [(1, 2, 2), (2, 3, 0), (3, 4, 1)]
    """
    low, high = min(values), max(values)
    if all(isinstance(value, int) for value in values):
        width = max(1, -int(-(high - low + 1) // bins))
        bins = int((high - low) // width + 1)
    elif low == high:
        width, bins = 1.0, 1
    else:
        width = (high - low) / bins
    counts = [0] * bins
    for value in values:
        counts[min(int((value - low) / width), bins - 1)] += 1
    return [(low + i * width, low + (i + 1) * width, n) for i, n in enumerate(counts)]
