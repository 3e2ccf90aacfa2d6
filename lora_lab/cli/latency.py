"""`latency`: what an adapter costs in time, whether merging changes the answers, and what switching the task takes."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lora_lab.cli.flags import command, data_of, number, prepare_bench, print_json, runs_flag
from lora_lab.errors import LabError, SpecError
from lora_lab.units import file_size, mean_ms, short_time

if TYPE_CHECKING:
    from lora_lab.analysis.timings import Latency, LogitDifferences, Switching
    from lora_lab.budget.paper import PaperLatency
    from lora_lab.inference import Subject
    from lora_lab.sweeps import Run

# The core is imported inside each command: `--help` and the other commands wait for no torch.
# ruff: noqa: PLC0415


def add(commands: Any) -> None:
    """Put `latency` on the parser."""
    latency = command(commands, "latency", _latency, "what an adapter costs in time, merged, beside the base, and in sequence")
    latency.add_argument("--bench", help="digits, reviews, or a folder or Hub id of any model; the run's own with --run")
    latency.add_argument("--data", help="CSV or JSONL, to compare logits on a base of your own; random tokens without it")
    latency.add_argument("--text-column", default="text")
    latency.add_argument("--label-column", default="label")
    latency.add_argument("--run", metavar="RUN", help="a run's id: its adapter is merged, in place of a random one")
    runs_flag(latency)
    latency.add_argument("--r", default="8", help="LoRA's rank, the bottlenecks' width, the prefix's tokens")
    latency.add_argument("--shapes", default="", help="batch x tokens such as 1x32,8x128; batch sizes where the base reads none")
    latency.add_argument("--repeats", default="20", help="rounds at each shape")
    latency.add_argument("--seed", default="0")
    latency.add_argument("--device", help="cuda, mps or cpu; the best there is by default")


def _latency(arguments: argparse.Namespace) -> int:
    from lora_lab.budget.paper import table_1
    from lora_lab.inference import differences_of_random, differences_of_run, measure_latency, measure_switching

    run = _run(arguments)
    subject = _subject(arguments, run)
    r, seed = number("r", arguments.r, int), number("seed", arguments.seed, int)
    repeats, device = number("repeats", arguments.repeats, int), arguments.device
    record = measure_latency(subject, _shapes(arguments.shapes), r=r, repeats=repeats, seed=seed, device=device)
    if run is not None:
        logits, no_logits = _tried(lambda: differences_of_run(subject, run.spec, run.adapter_dir))
    else:
        logits, no_logits = _tried(lambda: differences_of_random(subject, r=r, seed=seed))
    switching, no_switching = _tried(lambda: measure_switching(subject, r=r, seed=seed, device=device))
    if arguments.json:
        print_json(_document(record, logits, switching, table_1()))
    else:
        _print_latency(record, table_1())
        _print_logits(logits)
        _print_switching(switching)
    for reason in filter(None, (no_logits, no_switching)):
        print(reason, file=sys.stderr)
    return 0


def _run(arguments: argparse.Namespace) -> "Run | None":
    from lora_lab.sweeps import RunStore

    return RunStore(arguments.runs).get(arguments.run) if arguments.run else None


def _subject(arguments: argparse.Namespace, run: "Run | None") -> "Subject":
    """What is measured, fetched: the run's bench, or the one that is named."""
    from lora_lab.benches import BENCH_NAMES, find_bench
    from lora_lab.inference import find_subject

    name, data = (run.spec.bench, run.spec.data) if run else (arguments.bench, data_of(arguments))
    if name is None or (run and arguments.bench not in (None, run.spec.bench)):
        wanted = f"the run's, {run.spec.bench}" if run else "given where --run is not"
        raise SpecError(f"--bench must be {wanted}. Got {arguments.bench!r}.")
    if name not in BENCH_NAMES and data is None:
        return find_subject(name)
    bench = find_bench(name, data)
    prepare_bench(bench)
    return find_subject(bench)


def _shapes(text: str) -> tuple[Any, ...]:
    from lora_lab.analysis.timings import parse_shape

    return tuple(parse_shape(part) for part in text.split(",") if part.strip())


def _tried(measure: Callable[[], Any]) -> tuple[Any, str]:
    """What it measures, or nothing and why not."""
    try:
        return measure(), ""
    except LabError as err:
        return None, str(err)


def _document(
    record: "Latency", logits: "LogitDifferences | None", switching: "Switching | None", paper: "Sequence[PaperLatency]"
) -> dict[str, Any]:
    from dataclasses import asdict

    shapes = [
        {"batch": at.shape.batch, "tokens": at.shape.tokens, "variants": [_variant(timing) for timing in at.timings]}
        for at in record.shapes
    ]
    said = {name: getattr(record, name) for name in ("source", "params", "r", "device", "threads", "dtype")}
    differences = {**asdict(logits), "ways": [{**asdict(way), "relative": way.relative} for way in logits.ways]} if logits else None
    return {
        **said,
        "shapes": shapes,
        "refused": [asdict(refusal) for refusal in record.refused],
        "logit_difference": differences,
        "switching": asdict(switching) if switching else None,
        "paper": [{**asdict(one), "ratios": {name: one.ratio(name) for name in one.seconds}} for one in paper],
    }


def _variant(timing: Any) -> dict[str, Any]:
    s, ratio = timing.seconds, timing.ratio
    times = {"rounds": s.rounds, "median_s": s.median, "q1_s": s.q1, "q3_s": s.q3, "min_s": s.least}
    parts = {"ratio": "median", "ratio_q1": "q1", "ratio_q3": "q3", "ratio_low": "low", "ratio_high": "high"}
    ratios = {key: getattr(ratio, part) if ratio else None for key, part in parts.items()}
    return {"name": timing.name, **times, **ratios, "told": timing.told}


def _print_latency(record: "Latency", paper: "Sequence[PaperLatency]") -> None:
    from lora_lab.plots import latency_caption, on_a_gpu, refusals, variant_label

    print(f"{record.source}, {record.dtype}, r = {record.r}, {record.device}, {record.threads} threads")
    print(f"{'shape':>10} {'':22} {'median':>8} {'half of the rounds':>22} {'÷ base':>7} {'99 % interval':>14}")
    for at in record.shapes:
        for timing in at.timings:
            s, ratio = timing.seconds, timing.ratio
            half = f"{short_time(s.q1)} to {short_time(s.q3)}"
            row = f"{at.shape.label:>10} {variant_label(timing.name):22} {short_time(s.median):>8} {half:>22}"
            bounded = ratio is not None and ratio.low is not None
            bound = f"{ratio.low:.3f}–{ratio.high:.3f}" if ratio and bounded else ""
            mark = "" if timing.told is None else " told from the base" if timing.told else " not told from the base"
            print(f"{row} {'' if ratio is None else f'{ratio.median:.3f}':>7} {bound:>14}{mark}")
    for sentence in refusals(record):
        print(sentence)
    print(latency_caption(record))
    print("\nThe paper's Table 1: GPT-2 medium on a Quadro RTX 8000, mean ± sd of 100 trials")
    for one in paper:
        for name, printed in one.seconds.items():
            label = "Base (and LoRA, merged)" if name == "base" else variant_label(name)
            shape, ms = f"{one.batch} × {one.tokens}", f"{mean_ms(*printed)} ms"
            print(f"{shape:>10} {label:23} {ms:>18} {one.ratio(name):.3f}")
    print("\n" + " ".join(on_a_gpu(record)))


def _print_logits(logits: "LogitDifferences | None") -> None:
    from lora_lab.plots import logits_caption

    if logits is None:
        return
    print(f"\nThe largest difference of a logit, merged against unmerged: {logits.adapter}; {logits.examples}")
    for way in logits.ways:
        found = way.difference is not None
        print(f"{way.dtype:>10} {f'{way.difference:.3g} of {way.largest_logit:.4g}' if found else way.why}")
    print(logits_caption(logits))


def _print_switching(switching: "Switching | None") -> None:
    from lora_lab.plots import switching_caption

    if switching is None:
        return
    print(f"\nUntil another task's first answer is there: {switching.adapter}")
    print(f"{'the answer alone':>22} {short_time(switching.answer.median):>8}")
    for way in switching.ways:
        size = file_size(way.read_bytes) if way.read_bytes else ""
        print(f"{way.name:>22} {short_time(way.seconds.median):>8} {size:>9}")
    print(switching_caption(switching))
