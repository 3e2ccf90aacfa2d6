"""Quantities as people read them. The only place where a number gets its unit's name."""

_ROUNDS_UP = 0.9995  # 999,500 in three digits is 1.00 million


def count(n: int) -> str:
    """A parameter count in three significant digits.

    >>> count(9_175_040), count(4096), count(640)
    ('9.18 M', '4.1 k', '640')
    """
    for limit, suffix in ((10**12, " T"), (10**9, " B"), (10**6, " M"), (10**3, " k")):
        if n >= _ROUNDS_UP * limit:
            return f"{n / limit:.3g}{suffix}"
    return str(n)


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction as a percentage.

    >>> percent(0.8249)
    '82.5 %'
    """
    return f"{100 * fraction:.{digits}f} %"


def difference(fraction: float, digits: int = 1) -> str:
    """A relative difference as a percentage with its sign.

    >>> difference(0.0089), difference(-0.0624)
    ('+0.9 %', '-6.2 %')
    """
    rounded = round(100 * fraction, digits) + 0.0  # no minus before a zero
    return f"{rounded:+.{digits}f} %"


def plus_minus(mean: float, sd: float | None, digits: int = 1) -> str:
    """A mean with its standard deviation, as a cell of a table; without, where there is but one value.

    >>> plus_minus(87.12, 1.24), plus_minus(0.5, None, digits=2)
    ('87.1 ± 1.2', '0.50')
    """
    return f"{mean:.{digits}f}" + ("" if sd is None else f" ± {sd:.{digits}f}")


def seconds(duration_s: float) -> str:
    """A duration, whole seconds below two minutes and minutes above.

    >>> seconds(41.6), seconds(150.0)
    ('42 s', '2 min 30 s')
    """
    whole = round(duration_s)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


def short_time(duration_s: float) -> str:
    """A duration in three significant digits, milliseconds below a second.

    >>> short_time(0.01272), short_time(0.00097), short_time(1.4494)
    ('12.7 ms', '0.97 ms', '1.45 s')
    """
    return f"{duration_s:.3g} s" if duration_s >= 0.9995 else f"{1000 * duration_s:.3g} ms"


def mean_ms(mean_s: float, sd_s: float) -> str:
    """A mean of durations and their standard deviation in milliseconds.

    >>> mean_ms(1.4494, 0.0008)
    '1449.4 ± 0.8'
    """
    return f"{1000 * mean_s:.1f} ± {1000 * sd_s:.1f}"


def file_size(size_bytes: int) -> str:
    """A file's size in decimal units, as disks are sold (a GB is 10^9 bytes).

    >>> file_size(36_715_216), file_size(15_000)
    ('36.7 MB', '15 kB')
    """
    for limit, suffix in ((10**12, " TB"), (10**9, " GB"), (10**6, " MB"), (10**3, " kB")):
        if size_bytes >= _ROUNDS_UP * limit:
            return f"{size_bytes / limit:.3g}{suffix}"
    return f"{size_bytes} B"


def gigabytes(size_bytes: int) -> str:
    """Memory in GB of 10^9 bytes, one decimal; smaller sizes in MB.

    >>> gigabytes(22_293_000_000), gigabytes(36_715_216)
    ('22.3 GB', '37 MB')
    """
    return f"{size_bytes / 10**9:.1f} GB" if size_bytes >= 10**9 else f"{size_bytes / 10**6:.0f} MB"
