"""Human-readable counts, sizes and durations."""


def format_counts(counts) -> str:
    """Format a manifest's counts: rows, records and rejects by reason."""
    rejects = ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.rejects.items()))
    total = sum(counts.rejects.values())
    return f"{counts.rows:,} rows = {counts.records:,} records + {total:,} rejects" + (
        f" ({rejects})" if rejects else ""
    )


def printable(text: str) -> str:
    r"""Return `text` with non-printable characters escaped, so that it is safe on a terminal.

    >>> printable("a\x1b[2J b\n")
    'a\\x1b[2J b\\n'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def format_bytes(size: float) -> str:
    """Format a size in bytes with three significant digits and an SI unit.

    >>> format_bytes(1_234_567)
    '1.23 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.3g} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def format_duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours.

    >>> format_duration(4.2), format_duration(350), format_duration(9_000), format_duration(1e6)
    ('4.2 s', '5.83 min', '2.5 h', '278 h')
    """
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.3g} {unit}"
    return f"{seconds:.3g} s"
