"""Numbers and texts as a reader meets them: each kind is written in one way everywhere."""

import math

UNKNOWN = "unknown"
DASH = "\N{EN DASH}"  # a number that does not exist, such as the mean of no picture
MAX_DECIMALS = 15


def printable(text: str) -> str:
    """`text` of a file, with what a terminal might act on written as its escape."""
    return text if text.isprintable() else repr(text)


def counted(count: int, noun: str) -> str:
    """`1 picture`, `2,000 pictures`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def counted_pictures(different: int, copies: int = 0) -> str:
    """`16 pictures`; `14 different pictures (16 with copies)`."""
    if not copies:
        return counted(different, "picture")
    return f"{counted(different, 'different picture')} ({different + copies:,} with copies)"


def digits(value: float, significant: int = 3, max_decimals: int = MAX_DECIMALS) -> str:
    """`0.123`, `1.23`, `1,234`: so many digits, or all before the point; never with an exponent."""
    if not math.isfinite(value):
        return DASH
    rounded = abs(float(f"{value:.{significant}g}"))
    before_point = math.floor(math.log10(rounded)) + 1 if rounded else 1
    return f"{value:,.{min(max(significant - before_point, 0), max_decimals)}f}"


def plain(value: float) -> str:
    """`0.13`, `1,500`: as somebody would type it."""
    return f"{value:,.10g}"


def rounded_count(count: float) -> str:
    """`748,000`, `2.1 million`: three digits, since more are not known."""
    rounded = float(f"{count:.3g}")
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if rounded >= size:
            return f"{plain(rounded / size)} {unit}"
    return plain(rounded)


def byte_size(count: float | None) -> str:
    """`512 B`, `13.5 MB`."""
    if count is None or not math.isfinite(count):
        return DASH
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{digits(count / factor)} {unit}"
    return f"{count:.0f} B"


def seconds(value: float) -> str:
    """`0.5 s`, `2,000 s`."""
    if math.isnan(value):
        return UNKNOWN
    text = digits(value)
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} s"


def percent(part: float) -> str:
    return f"{part:.1%}" if math.isfinite(part) else DASH


def share_text(part: int, whole: int) -> str:
    """Percent, rounded to 100% or 0% only when it is exactly that."""
    if part in (0, whole):
        return "100%" if part and whole else "0%"
    return percent(min(max(part / whole, 0.001), 0.999))


def difference(part: float) -> str:
    """`6%`; `2.5x` for more than twice."""
    if part >= 1:
        return f"{1 + part:.3g}x"
    return f"{part:.0%}" if part >= 0.0095 else f"{part:.1%}"


def p_value(p: float) -> str:
    """As statisticians write it."""
    if not math.isfinite(p):
        return f"p {UNKNOWN}"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def rounded_alike(ratio: float, low: float, high: float) -> tuple[str, str, str]:
    """Rounded alike: finely enough to tell the ends from each other, and from 1 where it is out."""
    gap = high - low
    if not low <= 1 <= high:
        gap = min(gap or 1, abs(low - 1), abs(high - 1))
    decimals = min(max(2, math.ceil(-math.log10(min(gap, ratio) or 1))), 5)
    return f"{ratio:.{decimals}f}", f"{low:.{decimals}f}", f"{high:.{decimals}f}"
