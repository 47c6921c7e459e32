"""Prefetching reader, decoder and batcher: Python threads fetch bytes, tf.data does the rest.

TensorFlow never calls back into Python here. A tf.data pipeline that drew its elements from a
Python generator would hide errors. If stopped half way, it would hang at the interpreter's exit.
"""

import collections
import concurrent.futures
import functools
import os
from collections.abc import Callable, Generator, Hashable, Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from trainer.data.snapshot import CorruptRecordError, Readable, SnapshotError

# Number of batches read and decoded at once: two, so that one is read while another is decoded.
_AT_ONCE = 2
# Number of batches in progress or waiting, which bounds memory.
_AHEAD = 4
# Number of traces to keep: whole pictures need one for each of their shapes.
_GRAPHS = 32

# Maximum number of replacements for a corrupt record. If all of them are corrupt, more than single
# records are damaged, so the run stops.
_MAX_REPLACEMENTS = 8


class Request(NamedTuple):
    """The records of one batch, or of a host's slice of it."""

    step: int
    records: Int64[np.ndarray, " b"]
    seeds: Int64[np.ndarray, "b 2"]  # seeds of each clip's augmentation
    # Replacement for a row's corrupt record: (row, attempt) -> record. None stops the run.
    replacement: Callable[[int, int], int] | None = None


class Skipped(NamedTuple):
    """A corrupt record that was replaced in a row of a batch."""

    step: int
    row: int  # index in the request
    record: int
    replacement: int  # the record that was read instead; it may be corrupt, too
    message: str


class Answer(NamedTuple):
    """Decoded records of a request."""

    step: int
    clips: dict[str, Any]  # batched outputs of `decode`, by name
    skipped: list[Skipped]  # in the order of the attempts


def stream(
    records: Readable,
    requests: Iterable[Request],
    decode: Callable[..., dict[str, Any]],
    **settings: Hashable,
) -> Generator[Answer, None, None]:
    """Yield the decoded records of each request, in order.

    Closing the generator stops the reading.

    Args:
      records: the snapshot or mixture to read.
      requests: the records to read; drawn some batches ahead of use.
      decode: function of a module, traced as a graph: it maps (record: string [], seed: int64 [2])
        and the settings to one clip's tensors by name. Equal settings share one trace.
      settings: keyword arguments of `decode`.

    Yields:
      One answer per request. Its clips are NumPy arrays, nested lists if the length varies from
      clip to clip, or a tuple of arrays of pixels if `decode` returned them as `apart`.

    Raises:
      SnapshotError: a record cannot be read or decoded; raised after all earlier batches.
    """
    from trainer.data.cpu_tensorflow import tf

    decode_batch = _graph(decode, **settings)

    def load(request: Request) -> Answer:
        numbers, attempts = request.records.copy(), np.zeros(len(request.records), np.int64)
        skipped: list[Skipped] = []
        while True:
            try:
                return Answer(request.step, load_records(numbers, request.seeds), skipped)
            except CorruptRecordError as error:
                (rows,) = np.nonzero(numbers == error.record)
                if request.replacement is None or (attempts[rows] == _MAX_REPLACEMENTS).any():
                    raise
                for row in rows.tolist():
                    other = request.replacement(row, int(attempts[row]))
                    skipped.append(Skipped(request.step, row, error.record, other, str(error)))
                    numbers[row] = other
                attempts[rows] += 1

    def load_records(numbers: np.ndarray, seeds: np.ndarray) -> dict[str, Any]:
        data = records.read(numbers)
        try:
            fields = decode_batch(tf.constant(data), tf.constant(seeds))
        except tf.errors.OpError as error:
            alone = functools.partial(decode, **settings)
            raise _undecodable(records, numbers, data, seeds, alone, error) from None
        return {name: _plain(values) for name, values in fields.items()}

    ahead: collections.deque[concurrent.futures.Future[Answer]] = collections.deque()
    threads = concurrent.futures.ThreadPoolExecutor(_AT_ONCE, "decode")
    try:
        for request in requests:
            ahead.append(threads.submit(load, request))
            if len(ahead) == _AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


@functools.lru_cache(maxsize=_GRAPHS)
def _graph(
    decode: Callable[..., dict[str, Any]], **settings: Hashable
) -> Callable[..., dict[str, Any]]:
    """Return a tf.data pipeline over the records of one batch; tracing it takes a second."""
    from trainer.data.cpu_tensorflow import tf

    options = tf.data.Options()
    options.autotune.enabled = False
    parallel = len(os.sched_getaffinity(0))

    with_settings = functools.partial(decode, **settings)

    # The function has no Python control flow to convert.
    @tf.autograph.experimental.do_not_convert
    def decode_batch(records: Any, seeds: Any) -> dict[str, Any]:
        batched: Any = (
            tf.data.Dataset.from_tensor_slices((records, seeds))
            .map(with_settings, num_parallel_calls=parallel, deterministic=True)
            .ragged_batch(tf.size(records, tf.int64))
            .with_options(options)
        )
        return batched.get_single_element()

    signature = [tf.TensorSpec([None], tf.string), tf.TensorSpec([None, 2], tf.int64)]
    return tf.function(decode_batch, input_signature=signature).get_concrete_function()


def _plain(values: Any) -> Any:
    from trainer.data.zero_copy import from_variants

    if values.dtype.name == "variant":
        return from_variants(values)
    if hasattr(values, "to_list"):  # lengths vary
        return values.to_list()
    # memoryview avoids copying pixels. Strings do not support it.
    return values.numpy() if values.dtype.name == "string" else np.asarray(memoryview(values))


def _undecodable(
    records: Readable,
    numbers: np.ndarray,
    data: list[bytes],
    seeds: np.ndarray,
    decode: Callable[..., dict[str, Any]],
    error: Exception,
) -> SnapshotError:
    """Return an error that names the record of a batch that made the graph fail."""
    from trainer.data.cpu_tensorflow import tf

    # Like `_graph`, this avoids conversion: converted code would hide the cause.
    straight = tf.autograph.experimental.do_not_convert(decode)
    for number, clip, seed in zip(numbers.tolist(), data, seeds, strict=True):
        try:
            straight(tf.constant(clip), tf.constant(seed))
        except (tf.errors.OpError, ValueError) as cause:
            where = records.locate(number)
            return CorruptRecordError(
                f"shard {where.shard}, offset {where.offset}: clip {where.clip_id!r} cannot be "
                f"decoded ({_first_line(cause)}): run svilm-pipelines verify, then build again",
                number,
            )
    return SnapshotError(f"a batch cannot be decoded: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
