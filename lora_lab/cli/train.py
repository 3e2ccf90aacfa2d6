"""`train` and `sweep`: one run, or a grid of them, into the store."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from lora_lab.cli.flags import (
    axes,
    bench_flags,
    command,
    data_of,
    grouped_flag,
    grouped_of,
    method_flags,
    method_spec,
    number,
    optional,
    prepare,
    print_json,
    runner_flags,
)
from lora_lab.errors import SpecError
from lora_lab.events import DoneEvent, EvalEvent, Event
from lora_lab.specs import METHODS, Bias, Init, RunSpec
from lora_lab.sweep_spec import SweepSpec, parse_budget
from lora_lab.units import count, seconds

if TYPE_CHECKING:
    from lora_lab.budget import EqualChoice
    from lora_lab.sweeps import Run
    from lora_lab.sweeps.api import Watch

# The core is imported inside each command: `--help` and the other commands wait for no torch.
# ruff: noqa: PLC0415


_SNAPSHOTS = "how many ΔW of a run are kept, at even steps, the last being the final adapter itself, for `drift`"


def add(commands: Any) -> None:
    """Put `train` and `sweep` on the parser."""
    train = command(commands, "train", _train, "train one run")
    bench_flags(train)
    method_flags(train)
    train.add_argument("--loraplus-ratio", help="LoRA+: the learning rate of B over that of A")
    train.add_argument("--lr", help="learning rate; the bench's and the method's by default")
    train.add_argument("--seed", default="0")
    train.add_argument("--snapshots", default="0", help=_SNAPSHOTS)

    sweep = command(
        commands, "sweep", _sweep, "train a grid of adapters: every combination of the values given, most flags take several"
    )
    bench_flags(sweep)
    sweep.add_argument("--method", default="lora", help=f"one or several of {', '.join(METHODS)}")
    sweep.add_argument("--init", default="default", help=f"start values, one or several of {', '.join(get_args(Init))}")
    sweep.add_argument("--bias", default="none", help=f"biases trained beside, one or several of {', '.join(get_args(Bias))}")
    sweep.add_argument("--r", help="ranks; 1,2,4,8 by default")
    sweep.add_argument("--alpha", default="16", help="lora_alpha, or multiples of the rank such as 2r")
    sweep.add_argument("--targets", help="choices of targets, separated by semicolons; the method's own by default")
    sweep.add_argument("--layers", help="choices of layers, separated by semicolons, such as '0-1;2-3;all'")
    sweep.add_argument("--lr", help="learning rates")
    sweep.add_argument("--loraplus-ratio", help="LoRA+: learning rates of B over that of A")
    sweep.add_argument("--weight-decay")
    sweep.add_argument("--seeds", default="0")
    sweep.add_argument("--snapshots", default="0", help=_SNAPSHOTS)
    budget = "in place of --r: parameters such as 18M, or targets and an r such as q,v@8; each choice of targets has the r for that"
    sweep.add_argument("--equal-budget", help=budget)
    sweep.add_argument(
        "--may-exceed", action="store_true", help="of an equal budget, take the r that comes nearest from either side"
    )
    runner_flags(sweep)
    sweep.add_argument("--mirror", metavar="trackio[:PROJECT]", help="show the sweep in trackio too, in its local files")
    grouped_flag(sweep)
    sweep.add_argument("--plan", action="store_true", help="count runs, steps, bytes and time, and train nothing")


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
        snapshots=number("snapshots", arguments.snapshots, int),
        seed=number("seed", arguments.seed, int),
    )
    if arguments.json:
        print_json(run.to_json())
    else:
        print_runs([run])
    return 0


def _sweep(arguments: argparse.Namespace) -> int:
    from lora_lab.benches import find_bench
    from lora_lab.sweeps import expand, sweep

    grid = _grid(arguments)
    watch = _watch(arguments.mirror)
    prepare(arguments)
    choices = _equal_choices(arguments, grid)
    equal = {"equal_budget": [choice.to_json() for choice in choices]} if choices else {}
    if arguments.plan:
        specs = expand(find_bench(arguments.bench, data_of(arguments)), grid)
        return print_plan(specs, arguments, **equal)
    result = sweep(
        arguments.bench,
        grid,
        data=data_of(arguments),
        runs=arguments.runs,
        runner=arguments.runner,
        address=arguments.address,
        device=arguments.device,
        grouped=grouped_of(arguments),
        watch=watch,
    )
    for run_id, message in result.failed.items():
        print(f"{run_id}: {message}", file=sys.stderr)
    if arguments.json:
        document = {"runs": [run.to_json() for run in result], "skipped": list(result.skipped), "failed": result.failed}
        print_json({**document, "wall_s": result.wall_s, **equal})
    else:
        print_runs(result)
        print(f"{len(result)} runs, {len(result.skipped)} of them in the store already, {seconds(result.wall_s)}")
    return 1 if result.failed else 0


def _watch(mirror: str | None) -> "Watch":
    """Progress on standard error, and the mirror that is asked for."""
    if mirror is None:
        return report_progress
    from lora_lab.sweeps.mirror import open_mirror

    shown = open_mirror(mirror)

    def watch(spec: RunSpec, event: Event) -> None:
        report_progress(spec, event)
        shown(spec, event)

    return watch


def print_plan(specs: "Sequence[RunSpec]", arguments: argparse.Namespace, **beside: Any) -> int:
    """What the runs would take here, in place of training them."""
    from lora_lab.plots.sweep_captions import sweep_plan_caption
    from lora_lab.sweeps.estimate import plan_here

    plan = plan_here(specs, arguments.runs, runner=arguments.runner, device=arguments.device, grouped=grouped_of(arguments))
    if arguments.json:
        print_json({"plan": plan.to_json(), **beside})
    else:
        print(sweep_plan_caption(plan))
    return 0


def _grid(arguments: argparse.Namespace) -> SweepSpec:
    said, budget = axes(arguments), None
    if arguments.equal_budget is not None:
        budget = parse_budget(arguments.equal_budget, method=said["methods"][0])
        if arguments.r is not None:
            raise SpecError(f"--r must be left out where --equal-budget is given. Got {arguments.r!r}.")
    steps = optional("steps", arguments.steps, int)
    snapshots = number("snapshots", arguments.snapshots, int)
    return SweepSpec(**said, steps=steps, snapshots=snapshots, equal_budget=budget, may_exceed=arguments.may_exceed)


def _equal_choices(arguments: argparse.Namespace, grid: SweepSpec) -> "tuple[EqualChoice, ...]":
    """What an equal budget buys, said before anything is trained; nothing where there is none."""
    from lora_lab.benches import find_bench
    from lora_lab.budget.sentences import equal_sentence
    from lora_lab.sweeps.grid import equal_choices

    if grid.equal_budget is None:
        return ()
    choices = equal_choices(find_bench(arguments.bench, data_of(arguments)).geometry(), grid)
    for choice in choices:
        print(equal_sentence(choice), file=sys.stderr, flush=True)
    return choices


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
