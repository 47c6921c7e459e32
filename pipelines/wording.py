"""Counts and sizes in words, for a person."""


def counted(counts) -> str:
    """A manifest's counts: rows and what became of them."""
    rejects = ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.rejects.items()))
    total = sum(counts.rejects.values())
    return f"{counts.rows:,} rows = {counts.records:,} records + {total:,} rejects" + (
        f" ({rejects})" if rejects else ""
    )


def in_bytes(size: float) -> str:
    """A size.

    >>> in_bytes(1_234_567)
    '1.23 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.3g} {unit}"
        size /= 1000
    raise AssertionError("unreachable")
