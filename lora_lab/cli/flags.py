"""What the commands share: flags, what they mean, and how a document is printed."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

from lora_lab.errors import SpecError
from lora_lab.specs import METHODS, DataSpec, Init, MethodSpec, Task, parse_layers, resolve_alpha
from lora_lab.sweep_spec import AXES

if TYPE_CHECKING:
    from lora_lab.benches import Bench

# The core is imported inside each command: `--help` and the other commands wait for no torch.
# ruff: noqa: PLC0415


def command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.set_defaults(command=run)
    command.add_argument("--json", action="store_true", help="one JSON document on standard output")
    return command


def data_flags(command: argparse.ArgumentParser) -> None:
    benches = "digits, digits:inverted, digits:noised, reviews, e2e, sql, a folder or a Hub id"
    command.add_argument("--bench", required=True, help=benches)
    command.add_argument(
        "--data", help="for a base of your own: a CSV or JSONL file, a Hub dataset id, or a name such as glue:sst2"
    )
    tasks = ", ".join(filter(None, get_args(Task)))
    command.add_argument("--task", default="", help=f"what the data are read as: {tasks}; as the columns tell by default")
    command.add_argument("--text-column", default="text", help="of a classification, a regression or plain text")
    command.add_argument("--label-column", default="label", help="of a classification, or the numbers of a regression")
    command.add_argument("--pair-column", default="", help="the second text, where a label is of two")
    command.add_argument("--prompt-column", default="prompt", help="what a completion follows")
    command.add_argument("--completion-column", default="completion", help="what the base learns to write")


def bench_flags(command: argparse.ArgumentParser) -> None:
    data_flags(command)
    command.add_argument("--steps")
    command.add_argument("--batch", help="batch size")
    command.add_argument("--dropout", default="0", help="lora_dropout")
    command.add_argument("--virtual-tokens", default="8", help="tokens of the prefix or prompt that goes with LoRA")
    command.add_argument("--quant", help="none, int8, nf4 or nf4-dq; QLoRA means nf4-dq by default")
    command.add_argument("--optimizer", help="a class of torch.optim or bitsandbytes.optim; AdamW by default")
    command.add_argument("--device", help="cuda, mps or cpu; the best there is by default")
    runs_flag(command)


def runs_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument("--runs", default=os.environ.get("LORA_LAB_RUNS", "runs"), help="where runs are kept")


def method_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--method", default="lora", help=", ".join(METHODS))
    command.add_argument("--r", default="8", help="rank, bottleneck width, virtual tokens or top layers")
    command.add_argument("--alpha", default="16", help="lora_alpha, or a multiple of the rank such as 2r")
    command.add_argument("--targets", default="", help="module names or roles, or all-linear; the method's own by default")
    command.add_argument("--layers", default="", help="layers to adapt, such as 0-5,8")
    command.add_argument("--bias", default="none", help="biases trained beside: none, all or lora_only")
    command.add_argument("--init", default="default", help=f"start values of A and B: {', '.join(get_args(Init))}")


def runner_flags(command: argparse.ArgumentParser) -> None:
    """What trains the runs."""
    command.add_argument("--runner", default="process", help="process, inline or ray")
    address = "of ray: HOST:PORT of a cluster that this machine is part of, or auto; by default one of this machine alone"
    command.add_argument("--address", help=address)


def method_spec(arguments: argparse.Namespace) -> MethodSpec:
    r = number("r", arguments.r, int)
    return MethodSpec(
        method=arguments.method,
        r=r,
        lora_alpha=resolve_alpha(arguments.alpha, r),
        lora_dropout=number("dropout", arguments.dropout, float),
        target_modules=names(arguments.targets),
        layers_to_transform=parse_layers(arguments.layers),
        bias=arguments.bias,
        init_lora_weights=arguments.init,
        num_virtual_tokens=number("virtual-tokens", arguments.virtual_tokens, int),
    )


def axes(arguments: argparse.Namespace) -> dict[str, tuple[Any, ...]]:
    """The values of every axis of a grid that a flag was given for."""
    said = {name: getattr(arguments, axis.flag.replace("-", "_"), None) for name, axis in AXES.items()}
    return {name: AXES[name].read_all(text) for name, text in said.items() if text is not None}


def grouped_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--grouped", default="auto", help="auto (runs that can share a pass do), never, or the most runs of a pass"
    )


def grouped_of(arguments: argparse.Namespace) -> str | int:
    return int(arguments.grouped) if arguments.grouped.isdigit() else str(arguments.grouped)


def prepare(arguments: argparse.Namespace) -> None:
    """Fetch what the named bench needs, saying so; and what there is to know of the base's weights."""
    from lora_lab.benches import find_bench

    prepare_bench(find_bench(arguments.bench, data_of(arguments)))


def prepare_bench(bench: "Bench") -> None:
    """`prepare` for a bench that is found already."""
    bench.prepare(notify=say)
    if note := bench.note():
        say(note)


def say(sentence: str) -> None:
    """Progress, on standard error."""
    print(sentence, file=sys.stderr, flush=True)


def data_of(arguments: argparse.Namespace) -> DataSpec | None:
    if arguments.data is None:
        return None
    return DataSpec(
        path=arguments.data,
        task=arguments.task,
        text_column=arguments.text_column,
        label_column=arguments.label_column,
        pair_column=arguments.pair_column,
        prompt_column=arguments.prompt_column,
        completion_column=arguments.completion_column,
    )


def names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def number(flag: str, text: str, kind: type[Any]) -> Any:
    try:
        return kind(text)
    except ValueError:
        wanted = "an int" if kind is int else "a number"
        raise SpecError(f"--{flag} must be {wanted}. Got {text!r}.") from None


def optional(flag: str, text: str | None, kind: type[Any]) -> Any:
    return None if text is None else number(flag, text, kind)


def print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=1, allow_nan=False))
