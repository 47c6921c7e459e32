"""Console output of a training step: one row of at most 100 columns."""

from collections.abc import Mapping

_COLUMNS = 100

# Metrics that only metrics.jsonl has. The row shows losses and the metrics of a probe or a task.
_ONLY_RECORDED = {
    "clips_per_second",  # shown with its unit
    "corrupt_records",
    "device_memory_gib",
    "epoch",
    "flops_utilisation",
    "gradient_norm",
    "group_entropy",
    "groups_dead",
    "input_wait",
    "learning_rate",
    "skipped_steps",
    "step_seconds",
}


def row(
    step: int,
    steps: int,
    values: Mapping[str, int | float],
    left_s: float | None,
    columns: int = _COLUMNS,
) -> str:
    """Return the row of a step; without room for all metrics, the last ones are omitted first.

    Args:
      step: number of updates.
      steps: number of steps of the whole run.
      values: the step's metrics, by name, the loss first.
      left_s: seconds until the end; None omits it.
      columns: available width in columns; more than 100 are not used.

    >>> row(10, 520, {"loss": 5.5, "contrast": 2.75, "clips_per_second": 31.4, "epoch": 0}, 252.0)
    'step 10/520  loss 5.5  contrast 2.75  31.4 clips/s  0:04:12 left'
    """
    first = f"step {step:,}/{steps:,}"
    last = [f"{values['clips_per_second']:.3g} clips/s"] if "clips_per_second" in values else []
    if left_s is not None:
        minutes, seconds = divmod(round(left_s), 60)
        last.append(f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} left")
    shown = [f"{name} {value:.4g}" for name, value in values.items() if name not in _ONLY_RECORDED]
    columns = max(min(columns, _COLUMNS), 0)
    while shown and len("  ".join([first, *shown, *last])) > columns:
        shown.pop()
    return "  ".join([first, *shown, *last])[:columns]
