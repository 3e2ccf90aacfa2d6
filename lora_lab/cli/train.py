"""`train` and `sweep`: one run, or a grid of them, into the store."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from lora_lab.cli.flags import (
    bench_flags,
    command,
    data_of,
    method_flags,
    method_spec,
    names,
    number,
    optional,
    prepare,
    print_json,
)
from lora_lab.events import DoneEvent, EvalEvent, Event
from lora_lab.specs import METHODS, Init, RunSpec, SweepSpec
from lora_lab.units import count, seconds

if TYPE_CHECKING:
    from lora_lab.sweeps import Run

# The core is imported inside each command: `--help` and the other commands wait for no torch.
# ruff: noqa: PLC0415


def add(commands: Any) -> None:
    """Put `train` and `sweep` on the parser."""
    train = command(commands, "train", _train, "train one run")
    bench_flags(train)
    method_flags(train)
    train.add_argument("--loraplus-ratio", help="LoRA+: the learning rate of B over that of A")
    train.add_argument("--lr", help="learning rate; the bench's and the method's by default")
    train.add_argument("--seed", default="0")

    sweep = command(commands, "sweep", _sweep, "train a grid of adapters")
    bench_flags(sweep)
    sweep.add_argument("--method", default="lora", help=f"one or several of {', '.join(METHODS)}")
    sweep.add_argument("--init", default="default", help=f"start values, one or several of {', '.join(get_args(Init))}")
    sweep.add_argument("--r", default="1,2,4,8", help="ranks")
    sweep.add_argument("--alpha", default="16", help="lora_alpha, or multiples of the rank such as 2r")
    sweep.add_argument("--targets", default="", help="choices of targets, separated by semicolons; the method's own by default")
    sweep.add_argument("--lr", help="learning rates")
    sweep.add_argument("--seeds", default="0")
    sweep.add_argument("--runner", default="process", help="process or inline")


def _train(arguments: argparse.Namespace) -> int:
    from lora_lab.sweeps import train

    prepare(arguments)
    run = train(
        arguments.bench,
        method_spec(arguments),
        data=data_of(arguments),
        runs=arguments.runs,
        device=arguments.device,
        watch=report_progress,
        steps=optional("steps", arguments.steps, int),
        batch_size=optional("batch", arguments.batch, int),
        learning_rate=optional("lr", arguments.lr, float),
        loraplus_lr_ratio=optional("loraplus-ratio", arguments.loraplus_ratio, float),
        quant=arguments.quant,
        optimizer=arguments.optimizer,
        seed=number("seed", arguments.seed, int),
    )
    if arguments.json:
        print_json(run.to_json())
    else:
        print_runs([run])
    return 0


def _sweep(arguments: argparse.Namespace) -> int:
    from lora_lab.sweeps import sweep

    prepare(arguments)
    result = sweep(
        arguments.bench,
        _grid(arguments),
        data=data_of(arguments),
        runs=arguments.runs,
        runner=arguments.runner,
        device=arguments.device,
        watch=report_progress,
    )
    for run_id, message in result.failed.items():
        print(f"{run_id}: {message}", file=sys.stderr)
    if arguments.json:
        runs = [run.to_json() for run in result]
        print_json({"runs": runs, "skipped": list(result.skipped), "failed": result.failed, "wall_s": result.wall_s})
    else:
        print_runs(result)
        print(f"{len(result)} runs, {len(result.skipped)} of them in the store already, {seconds(result.wall_s)}")
    return 1 if result.failed else 0


def _grid(arguments: argparse.Namespace) -> SweepSpec:
    rates = arguments.lr and tuple(number("lr", text, float) for text in names(arguments.lr))
    return SweepSpec(
        r=tuple(number("r", text, int) for text in names(arguments.r)),
        lora_alpha=names(arguments.alpha),
        targets=tuple(names(choice) for choice in arguments.targets.split(";") if choice.strip()) or ((),),
        methods=names(arguments.method),
        init_lora_weights=names(arguments.init),  # type: ignore[arg-type]
        num_virtual_tokens=number("virtual-tokens", arguments.virtual_tokens, int),
        quant=arguments.quant,
        optimizer=arguments.optimizer,
        learning_rate=rates or None,
        seeds=tuple(number("seeds", text, int) for text in names(arguments.seeds)),
        steps=optional("steps", arguments.steps, int),
        batch_size=optional("batch", arguments.batch, int),
        lora_dropout=number("dropout", arguments.dropout, float),
    )


def report_progress(spec: RunSpec, event: Event) -> None:
    """Progress, a line an evaluation, on standard error."""
    name = f"{spec.tuning.method} r {spec.tuning.r} · seed {spec.seed}"
    if isinstance(event, EvalEvent):
        score = "" if event.score is None else f"score {event.score:.4g}, "
        split = "" if event.split == "validation" else f" ({event.split} split)"
        print(f"{name} · step {event.step} of {spec.steps}{split}: {score}loss {event.loss:.3f}", file=sys.stderr, flush=True)
    elif isinstance(event, DoneEvent) and event.status != "finished":
        print(f"{name} · {event.status}: {event.message}", file=sys.stderr, flush=True)


def print_runs(runs: "Sequence[Run]") -> None:
    heads = f"{'seed':>4} {'trains':>8} {'score':>9} {'base':>9} {'loss':>7} {'status':>9}"
    print(f"{'run':12} {'method':16} {'r':>4} {'alpha':>6} {'targets':24} {heads}")
    for run in runs:
        tuning, m = run.spec.tuning, run.metrics
        score, base = (_shown(run, run.score(base=base)) for base in (False, True))
        adapter = f"{tuning.method:16} {tuning.r:>4} {tuning.lora_alpha:>6g} {','.join(tuning.target_modules):24}"
        loss = "" if m["loss"] is None else f"{m['loss']:.3f}"
        found = f"{score:>9} {base:>9} {loss:>7} {m['status']:>9}"
        print(f"{run.run_id} {adapter} {run.spec.seed:>4} {count(m['trainable_params']):>8} {found}")
    for note in sorted({run.metrics["base_note"] for run in runs if run.metrics.get("base_note")}):
        print(note)
    for label in sorted({run.metric.label for run in runs}):
        print(f"score and base are the {label} on the validation split, of the run at its end and of its frozen base")
    echoes = [(run.metric, run.metrics.get(f"echo_{run.metrics['metric']}")) for run in runs]
    for text in sorted({metric.text(echo) for metric, echo in echoes if echo is not None}):
        print(f"the answer of the nearest training example, repeated, scores {text}")


def _shown(run: "Run", score: float | None) -> str:
    return "" if score is None else run.metric.text(score)
