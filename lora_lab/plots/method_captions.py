"""The sentences under the method bench: who leads, what cannot be told, what LoRA loses, how the rates were chosen."""

from collections.abc import Iterable, Sequence

from lora_lab.analysis.method_records import Comparison, Curve, Difference, MethodRow, MethodTable, Placed, mean_of, sd_of
from lora_lab.metrics import METRICS, Metric
from lora_lab.specs import METHODS
from lora_lab.units import gigabytes, seconds

_WORDS = {"bottleneck width": "width", "virtual tokens": "tokens", "top layers": ""}
_MOST_NAMED = 4


def budget_label(row: MethodRow) -> str:
    """A row by name: "LoRA r 8", "Adapter (Houlsby) width 8", "BitFit"."""
    info = METHODS[row.method]
    budget = [_WORDS.get(info.r_is, "r"), str(row.r)] if row.r is not None else []
    return " ".join(filter(None, [info.label, *budget]))


def methods_caption(table: MethodTable, comparison: Comparison) -> str:
    """What the seeds' spread supports, in sentences."""
    placed = [one for one in comparison.order if one.best is not None]
    if not placed:
        return " ".join(filter(None, ["No method has a place yet.", _unsettled(table), _diverged(table)]))
    said = [
        _leader(table, comparison, placed),
        _lora_and_full(table, comparison),
        *(_falls(table, curve) for curve in comparison.curves),
    ]
    return " ".join(filter(None, [*said, _rates(table), _unsettled(table), _diverged(table)]))


def _leader(table: MethodTable, comparison: Comparison, placed: Sequence[Placed]) -> str:
    first, metric = placed[0].row, table.metric
    spread = f" ± {metric.text(first.sd)}" if first.sd is not None else ""
    what = "" if metric.unit == "nats" else f" {metric.label}"
    has = f"{budget_label(first)} has the best mean, {metric.text(first.mean or 0.0)}{spread}{what}"
    seeds = f"over {len(first.seeds)} seeds" if len(first.seeds) > 1 else "with one seed"
    if len(placed) == 1:
        return f"{has} {seeds}; there is no other method to tell it from."
    if all(pair.holm is None for pair in comparison.pairs):
        return f"{has} {seeds}: without a spread over seeds nothing can be told."
    if not any(pair.is_told for pair in comparison.pairs):
        return f"{has} {seeds}, but nothing can be told: no two of these methods differ by more than their seeds' spread allows."
    open_ = [one.row for one in placed[1:] if not _told(comparison, first, one.row)]
    if not open_:
        return f"{has} {seeds}, and the spread over seeds tells it from every other method."
    return f"{has} {seeds}; the spread over seeds does not tell it from {listed(map(budget_label, open_), most=_MOST_NAMED)}."


def score_text(row: MethodRow, metric: Metric) -> str:
    """The mean on the test split ± sd; the sentence's own word where a seed diverged, nothing where there is no score."""
    if row.diverged:
        return "diverged"
    return _with_spread(metric, row.mean, row.sd)


def kept_text(row: MethodRow) -> str:
    """What the base still can ± sd, in the unit that it is measured by."""
    unit = {"accuracy": METRICS["accuracy"], "loss": METRICS["loss"]}.get(row.kept or "", METRICS["matthews"])
    return _with_spread(unit, mean_of(row.after), sd_of(row.after)) if row.kept else ""


def memory_text(row: MethodRow) -> str:
    """Peak memory as predicted, `≤` where that is a bound, and as measured where it was."""
    bound = "≤ " if row.memory_is_bound else ""
    predicted = [f"{bound}{gigabytes(row.memory_bytes)}"] if row.memory_bytes is not None else []
    return ", ".join([*predicted, *([f"{gigabytes(row.measured_bytes)} measured"] if row.measured_bytes is not None else [])])


def rate_text(row: MethodRow) -> str:
    """The chosen learning rate, marked where it lies at the edge of the rates tried."""
    return f"{row.learning_rate:g}{' (edge)' if row.at_edge else ''}"


def _with_spread(metric: Metric, mean: float | None, sd: float | None) -> str:
    if mean is None:
        return ""
    return metric.text(mean) + (f" ± {metric.text(sd)}" if sd is not None else "")


def _told(comparison: Comparison, first: MethodRow, second: MethodRow) -> bool:
    pair = comparison.between(first, second)
    return pair is not None and pair.is_told


def _lora_and_full(table: MethodTable, comparison: Comparison) -> str:
    """LoRA's chosen budget against full fine-tuning: a question that was there before the numbers, and so stands by itself."""
    pair = comparison.lora_and_full
    if pair is None or pair.difference is None:
        return ""
    lora = next(budget_label(row) for row in table.rows if row.name == pair.first)
    if pair.p is None:
        return f"One seed does not tell {lora} from full fine-tuning."
    wins = table.sign * pair.difference > 0
    gap = gap_text(table.metric, pair)
    if not pair.is_told_alone:
        return f"Nothing here tells {lora} from full fine-tuning: they are {gap} apart."
    asked = (
        ""
        if pair.is_told
        else f", asked as one question (p = {pair.p:.2g}); among all {len(comparison.pairs)} pairs it is not told"
    )
    return f"{lora} {'beats' if wins else 'loses to'} full fine-tuning by {gap}{asked}."


def gap_text(metric: Metric, pair: Difference) -> str:
    """How far two means are apart, with half the width of the 95 % interval: "4.2 ± 1.1 points"."""
    factor, digits = (100, 1) if metric.unit == "share" else (1, 1 if metric.unit == "points" else 3)
    width = f" ± {factor * pair.half_width:.{digits}f}" if pair.half_width is not None else ""
    return f"{factor * abs(pair.difference or 0.0):.{digits}f}{width}{' points' if metric.unit == 'share' else ''}"


def _falls(table: MethodTable, curve: Curve) -> str:
    """A method that more parameters make worse; nothing where the spread over seeds does not support it."""
    if not curve.falls or curve.loss is None:
        return ""
    apart = gap_text(table.metric, curve.loss)
    return f"{budget_label(curve.largest)} is {apart} worse than {budget_label(curve.chosen)}: more parameters do not help it."


def _rates(table: MethodTable) -> str:
    """How rates and budgets were chosen, and which choices may not be the best there is."""
    tried = sorted({len(row.rates) for row in table.rows if row.method not in table.unsettled})
    span = f"{tried[0]}" if len(tried) == 1 else f"{tried[0]} to {tried[-1]}"
    noun = "learning rate" if tried[-1] == 1 else "learning rates"
    chosen = f"Rate and budget are the best of {span} {noun} and the budgets tried, by the validation split"
    edge = [row for row in table.chosen() if row.at_edge and row.validation is not None and row.method not in table.unsettled]
    if not edge:
        return f"{chosen}; no method's rate lies at the edge of its grid."
    verb = "lies" if len(edge) == 1 else "lie"
    names = listed(map(budget_label, edge), most=_MOST_NAMED)
    return f"{chosen}; {names} still {verb} at the edge of the rates tried, and may do better beyond."


def _unsettled(table: MethodTable) -> str:
    if not table.unsettled:
        return ""
    verb = "has" if len(table.unsettled) == 1 else "have"
    names = listed((METHODS[method].label for method in table.unsettled), most=_MOST_NAMED)
    return f"{names} still {verb} rates to try, and no place before."


def _diverged(table: MethodTable) -> str:
    broken = [row for row in table.chosen() if row.diverged]
    if not broken:
        return ""
    return f"{listed(map(budget_label, broken), most=_MOST_NAMED)} diverged at every rate tried and has no place."


def listed(names: Iterable[str], *, most: int) -> str:
    """Names in a sentence: "A, B and C", the ones beyond `most` counted.

    >>> listed(["A"], most=2), listed("AB", most=2), listed("ABCD", most=2)
    ('A', 'A and B', 'A, B and 2 others')
    """
    known = list(names)
    if len(known) > most:
        beyond = len(known) - most
        return f"{', '.join(known[:most])} and {beyond} {'other' if beyond == 1 else 'others'}"
    return " and ".join(filter(None, [", ".join(known[:-1]), *known[-1:]]))


def seeds_note(table: MethodTable) -> str:
    """What the spread is of, and what told apart means."""
    rows = f" of {table.test_examples} examples" if table.test_examples else ""
    return (
        f"Mean ± sd over {len(table.seeds)} seeds on one test split{rows}. A place spans what the spread leaves open: methods are"
        " told apart by Welch's t with variances that lean on each other, at 5 % over all pairs (Holm)."
    )


def plan_caption(grids: int, rates: int, seeds: int, *, runs: int, kept: int, left_s: float | None) -> str:
    """How many runs a bench takes as far as is known, how many there are, and how long the others may take."""
    each = f"{rates} learning {'rate' if rates == 1 else 'rates'} and {seeds} {'seed' if seeds == 1 else 'seeds'}"
    had = f", {kept} of them in the store already" if kept else ""
    what = f"{grids} {'budget' if grids == 1 else 'budgets of all methods together'}, {each} each: {runs} runs{had}."
    if kept == runs:
        return f"{what} No grid of rates wants another."
    left = f" The others take about {seconds(left_s)} here." if left_s is not None else ""
    return f"{what}{left} Where the best rate lies at an edge, up to two rates are added."


def refused_note(refused: dict[str, str]) -> str:
    """What is left out, in a few words; every reason once."""
    by_reason: dict[str, list[str]] = {}
    for what, why in refused.items():
        method, _, budget = what.partition(" ")
        by_reason.setdefault(why, []).append(" ".join(filter(None, [METHODS[method].label, budget])))
    return " ".join(f"Without {listed(names, most=_MOST_NAMED)}: {why}" for why, names in by_reason.items())
