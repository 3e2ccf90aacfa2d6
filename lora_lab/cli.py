"""The command line: reads flags, calls the core, prints. `--json` puts one JSON document on standard output."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lora_lab.errors import LabError, SpecError
from lora_lab.events import DoneEvent, EvalEvent, Event
from lora_lab.specs import METHODS, DataSpec, Init, MethodSpec, RunSpec, SweepSpec, parse_layers, resolve_alpha
from lora_lab.units import count, gigabytes, percent, seconds

if TYPE_CHECKING:
    from lora_lab.sweeps import Run

# The core is imported inside each command: `--help` and the other commands wait for no torch.
# ruff: noqa: PLC0415


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, 1 where runs failed, 2 for a user's mistake."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.command(arguments)
    except LabError as err:
        print(f"lora-lab: {err}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lora-lab: stopped; what was learned so far is in the store.", file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lora-lab", description="Train LoRA adapters and look inside them.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _budget_flags(_command(commands, "budget", _budget, "what a configuration costs in parameters and memory"))
    train = _command(commands, "train", _train, "train one run")
    _bench_flags(train)
    _method_flags(train)
    train.add_argument("--loraplus-ratio", help="LoRA+: the learning rate of B over that of A")
    train.add_argument("--lr", help="learning rate; the bench's and the method's by default")
    train.add_argument("--seed", default="0")

    sweep = _command(commands, "sweep", _sweep, "train a grid of adapters")
    _bench_flags(sweep)
    sweep.add_argument("--method", default="lora", help=f"one or several of {', '.join(METHODS)}")
    sweep.add_argument("--init", default="default", help=f"start values, one or several of {', '.join(get_args(Init))}")
    sweep.add_argument("--r", default="1,2,4,8", help="ranks")
    sweep.add_argument("--alpha", default="16", help="lora_alpha, or multiples of the rank such as 2r")
    sweep.add_argument("--targets", default="", help="choices of targets, separated by semicolons; the method's own by default")
    sweep.add_argument("--lr", help="learning rates")
    sweep.add_argument("--seeds", default="0")
    sweep.add_argument("--runner", default="process", help="process or inline")

    inspect = _command(commands, "inspect", _inspect, "the spectrum of every ΔW of an adapter")
    inspect.add_argument("adapter", help="a PEFT folder, a file in one, a Hub id, or a run's id")
    inspect.add_argument("--runs", default=os.environ.get("LORA_LAB_RUNS", "runs"), help="where runs are kept")

    merge = _command(commands, "merge", _merge, "what merging an adapter into its base costs, and the merged model")
    merge.add_argument("run", metavar="RUN", help="a run's id")
    merge.add_argument("--out", help="a folder for the merged model, whole, as transformers saves it")
    merge.add_argument("--runs", default=os.environ.get("LORA_LAB_RUNS", "runs"), help="where runs are kept")

    compare = _command(commands, "compare", _compare, "φ between two runs or adapters")
    compare.add_argument("first", metavar="RUN1", help="a run's id, or an adapter as for inspect")
    compare.add_argument("second", metavar="RUN2")
    compare.add_argument("--of", default="delta", choices=("delta", "a"), help="singular vectors of ΔW, or of A")
    compare.add_argument("--side", default="in", choices=("in", "out"), help="input or output side")
    compare.add_argument("--module", help="one matrix only")
    compare.add_argument("--runs", default=os.environ.get("LORA_LAB_RUNS", "runs"), help="where runs are kept")
    return parser


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.set_defaults(command=run)
    command.add_argument("--json", action="store_true", help="one JSON document on standard output")
    return command


def _bench_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--bench", required=True, help="digits, digits:inverted, digits:noised, reviews, a folder or a Hub id")
    command.add_argument("--data", help="CSV or JSONL for a base of your own")
    command.add_argument("--text-column", default="text")
    command.add_argument("--label-column", default="label")
    command.add_argument("--steps")
    command.add_argument("--batch", help="batch size")
    command.add_argument("--dropout", default="0", help="lora_dropout")
    command.add_argument("--virtual-tokens", default="8", help="tokens of the prefix or prompt that goes with LoRA")
    command.add_argument("--quant", help="none, int8, nf4 or nf4-dq; QLoRA means nf4-dq by default")
    command.add_argument("--optimizer", help="a class of torch.optim or bitsandbytes.optim; AdamW by default")
    command.add_argument("--device", help="cuda, mps or cpu; the best there is by default")
    command.add_argument("--runs", default=os.environ.get("LORA_LAB_RUNS", "runs"), help="where runs are kept")


def _method_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--method", default="lora", help=", ".join(METHODS))
    command.add_argument("--r", default="8", help="rank, bottleneck width, virtual tokens or top layers")
    command.add_argument("--alpha", default="16", help="lora_alpha, or a multiple of the rank such as 2r")
    command.add_argument("--targets", default="", help="module names or roles, or all-linear; the method's own by default")
    command.add_argument("--layers", default="", help="layers to adapt, such as 0-5,8")
    command.add_argument("--bias", default="none", help="biases trained beside: none, all or lora_only")
    command.add_argument("--init", default="default", help=f"start values of A and B: {', '.join(get_args(Init))}")


def _budget_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", required=True, help="a name of the catalogue, a config.json, a folder or a Hub id")
    _method_flags(command)
    command.add_argument("--virtual-tokens", default="8", help="tokens of the prefix or prompt that goes with LoRA")
    command.add_argument("--batch", default="1", help="sequences a step")
    command.add_argument("--seq", default="512", help="tokens a sequence")
    command.add_argument("--dtype", default="bf16", help="bf16, fp16 or fp32")
    command.add_argument("--quant", help="none, int8, nf4 or nf4-dq")
    command.add_argument("--adapter-dtype", default="fp32", help="fp32 or bf16")
    command.add_argument("--optimizer", default="adamw", help="adamw, adamw8bit, paged-adamw8bit, adafactor or sgd")
    command.add_argument("--dropout", default="0", help="lora_dropout")
    command.add_argument("--attention", default="sdpa", help="sdpa, flash or eager")
    for flag, text in (
        ("checkpointing", "recompute each layer in the backward pass"),
        ("fused-loss", "a loss that never holds the logits"),
        ("kbit-prepare", "as PEFT's prepare_model_for_kbit_training"),
        ("trace", "run two steps on the meta device instead of the formula"),
    ):
        command.add_argument(f"--{flag}", action="store_true", help=text)
    command.add_argument("--peft-config", help="any adapter_config.json: attached and traced")
    command.add_argument("--fits-in", help="a card, or a size such as 24GB: also the largest rank that fits")


def _budget(arguments: argparse.Namespace) -> int:
    from lora_lab.budget import budget, budget_of_config, cheapest_change, find_card, most_that_fits
    from lora_lab.budget.sentences import budget_sentence, counter_sentence, remedy_sentence

    card = find_card(arguments.fits_in) if arguments.fits_in else None
    step = _step(arguments)
    if arguments.peft_config:
        made = budget_of_config(arguments.model, arguments.peft_config, **step)
    else:
        made = budget(arguments.model, _method_spec(arguments), trace=arguments.trace, **step)
    most = most_that_fits(made, card) if card else {}
    if arguments.json:
        _print_json({**made.to_json(), **most, **({"fits_in": made.fits(card)} if card else {})})
        return 0
    print(budget_sentence(made), counter_sentence(made), sep="\n")
    for part, n_bytes in made.ledger.to_json().items():
        print(f"{part:12} {gigabytes(n_bytes):>10}")
    for note in made.notes:
        print(note)
    print("fits: " + (", ".join(name for name, fits in made.fitting.items() if fits) or "no card of the catalogue"))
    if card and not made.attached:
        print(remedy_sentence(cheapest_change(made, card), card))
        print("the most that fits, each alone: " + ", ".join(f"{name} {n or 'none'}" for name, n in most.items()))
    return 0


def _method_spec(arguments: argparse.Namespace) -> MethodSpec:
    r = _number("r", arguments.r, int)
    return MethodSpec(
        method=arguments.method,
        r=r,
        lora_alpha=resolve_alpha(arguments.alpha, r),
        lora_dropout=_number("dropout", arguments.dropout, float),
        target_modules=_names(arguments.targets),
        layers_to_transform=parse_layers(arguments.layers),
        bias=arguments.bias,
        init_lora_weights=arguments.init,
        num_virtual_tokens=_number("virtual-tokens", arguments.virtual_tokens, int),
    )


def _step(arguments: argparse.Namespace) -> dict[str, Any]:
    plain = ("dtype", "adapter_dtype", "optimizer", "attention", "checkpointing", "fused_loss", "kbit_prepare")
    step = {name: getattr(arguments, name) for name in plain}
    step |= {name: _number(name, getattr(arguments, name), int) for name in ("batch", "seq")}
    return step | ({"quant": arguments.quant} if arguments.quant else {})


def _train(arguments: argparse.Namespace) -> int:
    from lora_lab.sweeps import train

    _prepare(arguments)
    run = train(
        arguments.bench,
        _method_spec(arguments),
        data=_data(arguments),
        runs=arguments.runs,
        device=arguments.device,
        watch=_report,
        steps=_optional("steps", arguments.steps, int),
        batch_size=_optional("batch", arguments.batch, int),
        learning_rate=_optional("lr", arguments.lr, float),
        loraplus_lr_ratio=_optional("loraplus-ratio", arguments.loraplus_ratio, float),
        quant=arguments.quant,
        optimizer=arguments.optimizer,
        seed=_number("seed", arguments.seed, int),
    )
    if arguments.json:
        _print_json(run.to_json())
    else:
        _print_runs([run])
    return 0


def _sweep(arguments: argparse.Namespace) -> int:
    from lora_lab.sweeps import sweep

    _prepare(arguments)
    result = sweep(
        arguments.bench,
        _grid(arguments),
        data=_data(arguments),
        runs=arguments.runs,
        runner=arguments.runner,
        device=arguments.device,
        watch=_report,
    )
    for run_id, message in result.failed.items():
        print(f"{run_id}: {message}", file=sys.stderr)
    if arguments.json:
        runs = [run.to_json() for run in result]
        _print_json({"runs": runs, "skipped": list(result.skipped), "failed": result.failed, "wall_s": result.wall_s})
    else:
        _print_runs(result)
        print(f"{len(result)} runs, {len(result.skipped)} of them in the store already, {seconds(result.wall_s)}")
    return 1 if result.failed else 0


def _prepare(arguments: argparse.Namespace) -> None:
    """Fetch what the bench needs, saying so."""
    from lora_lab.benches import find_bench

    find_bench(arguments.bench, _data(arguments)).prepare(notify=lambda sentence: print(sentence, file=sys.stderr, flush=True))


def _grid(arguments: argparse.Namespace) -> SweepSpec:
    rates = arguments.lr and tuple(_number("lr", text, float) for text in _names(arguments.lr))
    return SweepSpec(
        r=tuple(_number("r", text, int) for text in _names(arguments.r)),
        lora_alpha=_names(arguments.alpha),
        targets=tuple(_names(choice) for choice in arguments.targets.split(";") if choice.strip()) or ((),),
        methods=_names(arguments.method),
        init_lora_weights=_names(arguments.init),  # type: ignore[arg-type]
        num_virtual_tokens=_number("virtual-tokens", arguments.virtual_tokens, int),
        quant=arguments.quant,
        optimizer=arguments.optimizer,
        learning_rate=rates or None,
        seeds=tuple(_number("seeds", text, int) for text in _names(arguments.seeds)),
        steps=_optional("steps", arguments.steps, int),
        batch_size=_optional("batch", arguments.batch, int),
        lora_dropout=_number("dropout", arguments.dropout, float),
    )


def _inspect(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from lora_lab.analysis import spectrum

    adapter = _open(arguments.adapter, arguments.runs)
    spectra = spectrum(adapter)
    if arguments.json:
        modules = [{**asdict(one), "scaling_source": adapter.scaling_source} for one in spectra]
        _print_json({"format": adapter.format, "modules": modules, "warnings": list(adapter.warnings)})
        return 0
    print(f"{'matrix':40} {'shape':>11} {'r':>4} {'‖ΔW‖':>9} {'stable':>7} {'effective':>10}")
    for one in spectra:
        shape, ranks = f"{one.shape[0]}×{one.shape[1]}", (_rank(one.stable_rank), _rank(one.effective_rank))
        print(f"{one.name:40} {shape:>11} {one.r:>4} {one.frobenius:>9.4g} {ranks[0]:>7} {ranks[1]:>10}")
    for warning in adapter.warnings:
        print(warning, file=sys.stderr)
    return 0


def _merge(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from lora_lab.inference import export_merged, merge_report
    from lora_lab.sweeps import RunStore

    run = RunStore(arguments.runs).get(arguments.run)
    report = merge_report(run.spec, run.adapter_dir)
    if arguments.out:
        export_merged(run.spec, run.adapter_dir, Path(arguments.out))
    if arguments.json:
        _print_json({"run_id": run.run_id, **asdict(report), "out": arguments.out})
        return 0
    print(f"{'adapter':28} {'logits moved by':>16} {'accuracy':>9}   on {report.rows} held-out examples")
    print(f"{'beside the base, as trained':28} {'':>16} {percent(report.accuracy):>9}")
    for way in (*report.ways, *([report.unquantized] if report.unquantized else [])):
        moved = "" if way.difference is None else f"{way.difference:.2e}"
        name = "on the unquantized base" if way.name == "unquantized" else f"merged, kept in {way.name}"
        print(f"{name:28} {moved:>16} {'' if way.score is None else percent(way.score):>9}")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from lora_lab.analysis import overlap

    first, second = (_open(source, arguments.runs) for source in (arguments.first, arguments.second))
    found = overlap(first, second, of=arguments.of, side=arguments.side, module=arguments.module)
    if arguments.json:
        modules = [{"name": o.name, "phi": o.phi, "chance": o.chance, "dimension": o.dimension} for o in found]
        _print_json({"of": arguments.of, "side": arguments.side, "modules": modules})
        return 0
    print(f"{'matrix':40} {'φ(1,1)':>8} {'chance':>8} {'φ(i,j)':>8} {'chance':>8}  at the largest i, j (~ tells nothing)")
    for one in found:
        if one.phi is None or one.chance is None:
            print(f"{one.name:40} no direction: one of the two is zero")
        else:
            corner = f"{one.phi[-1][-1]:>8.3f} {one.chance[-1][-1]:>8.3f}"
            mark = " ~" if one.has_cells_that_tell_nothing else ""
            print(f"{one.name:40} {one.phi[0][0]:>8.3f} {one.chance[0][0]:>8.3f} {corner}{mark}")
    return 0


def _open(source: str, runs: str) -> Any:
    """An adapter by its place, or by the id of a run in the store."""
    from lora_lab.adapters import load_adapter

    looks_like_id = len(source) <= 12 and all(c in "0123456789abcdef" for c in source)
    if looks_like_id and not Path(source).exists() and Path(runs).is_dir():
        from lora_lab.sweeps import RunStore

        return RunStore(runs).get(source).adapter()
    place = Path(source)
    return load_adapter(place / "adapter" if (place / "adapter" / "adapter_config.json").is_file() else source)


def _report(spec: RunSpec, event: Event) -> None:
    """Progress, a line an evaluation, on standard error."""
    name = f"{spec.tuning.method} r {spec.tuning.r} · seed {spec.seed}"
    if isinstance(event, EvalEvent):
        line = f"step {event.step} of {spec.steps}: accuracy {percent(event.accuracy)}, loss {event.loss:.3f}"
        print(f"{name} · {line}", file=sys.stderr, flush=True)
    elif isinstance(event, DoneEvent) and event.status != "finished":
        print(f"{name} · {event.status}: {event.message}", file=sys.stderr, flush=True)


def _print_runs(runs: "Sequence[Run]") -> None:
    heads = f"{'seed':>4} {'trains':>8} {'accuracy':>9} {'base':>7} {'status':>9}"
    print(f"{'run':12} {'method':16} {'r':>4} {'alpha':>6} {'targets':24} {heads}")
    for run in runs:
        tuning, m = run.spec.tuning, run.metrics
        accuracy = "" if m["accuracy"] is None else percent(m["accuracy"])
        adapter = f"{tuning.method:16} {tuning.r:>4} {tuning.lora_alpha:>6g} {','.join(tuning.target_modules):24}"
        found = f"{accuracy:>9} {percent(m['base_accuracy']):>7} {m['status']:>9}"
        print(f"{run.run_id} {adapter} {run.spec.seed:>4} {count(m['trainable_params']):>8} {found}")


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=1, allow_nan=False))


def _rank(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _number(flag: str, text: str, kind: type[Any]) -> Any:
    try:
        return kind(text)
    except ValueError:
        wanted = "an int" if kind is int else "a number"
        raise SpecError(f"--{flag} must be {wanted}. Got {text!r}.") from None


def _optional(flag: str, text: str | None, kind: type[Any]) -> Any:
    return None if text is None else _number(flag, text, kind)


def _data(arguments: argparse.Namespace) -> DataSpec | None:
    if arguments.data is None:
        return None
    return DataSpec(path=arguments.data, text_column=arguments.text_column, label_column=arguments.label_column)
