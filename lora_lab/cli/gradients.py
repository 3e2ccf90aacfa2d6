"""`gradients`: what the first gradient of a base says of where LoRA should go, and whether runs found it right."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_lab.cli.flags import command, data_flags, data_of, number, optional, prepare_bench, print_json, runs_flag

if TYPE_CHECKING:
    from lora_lab.analysis.gradient_records import GradientAdvice
    from lora_lab.sweeps import Run

# The core is imported inside each command: `--help` and the other commands wait for no torch.
# ruff: noqa: PLC0415


def add(commands: Any) -> None:
    """Put `gradients` on the parser."""
    text = "∂L/∂W of every matrix before LoRA starts: which it is largest in, the rank it asks for, and what runs found"
    gradients = command(commands, "gradients", _gradients, text)
    data_flags(gradients)
    gradients.add_argument("--batches", default="8", help="whose mean it is")
    gradients.add_argument("--batch", help="batch size; the bench's by default")
    gradients.add_argument("--seed", default="0", help="of the batches, and of a head that is trained beside the adapter")
    gradients.add_argument("--r", default="8", help="the rank in question")
    gradients.add_argument("--share", default="0.9", help="of ‖G‖², for which the rank is told")
    gradients.add_argument("--k", default="4", help="how many leading directions of gradient and ΔW are compared")
    gradients.add_argument("--against", metavar="RUN", action="append", default=[], help="a run's id; may be given again")
    gradients.add_argument("--device", help="cuda, mps or cpu; the best there is by default")
    runs_flag(gradients)


def _gradients(arguments: argparse.Namespace) -> int:
    from lora_lab.benches import find_bench
    from lora_lab.sweeps.gradient_advice import gradient_advice

    bench = find_bench(arguments.bench, data_of(arguments))
    against, runs = _runs(arguments)
    prepare_bench(bench)
    advice = gradient_advice(
        bench,
        batches=number("batches", arguments.batches, int),
        batch_size=optional("batch", arguments.batch, int),
        seed=number("seed", arguments.seed, int),
        r=number("r", arguments.r, int),
        share=number("share", arguments.share, float),
        k=number("k", arguments.k, int),
        against=against,
        runs=runs,
        device=arguments.device,
    )
    if arguments.json:
        print_json(_document(advice))
    else:
        _print(advice)
    return 0


def _runs(arguments: argparse.Namespace) -> "tuple[list[Run], list[Run]]":
    """The runs that are named, and all of their store; without a name a store that is not there is not made."""
    from lora_lab.sweeps import RunStore

    if not arguments.against and not Path(arguments.runs).is_dir():
        return [], []
    store = RunStore(arguments.runs)
    return [store.get(run_id) for run_id in arguments.against], store.runs()


def _document(advice: "GradientAdvice") -> dict[str, Any]:
    from dataclasses import asdict

    from lora_lab.plots.base_gradients import base_gradient_caption, learned_beside_caption, tried_advice_caption

    against = [{**asdict(one), "sentence": learned_beside_caption(one, run=one.run_id)} for one in advice.against]
    tried = None if advice.tried is None else {**asdict(advice.tried), **_verdicts(advice)}
    sentences = {"sentence": base_gradient_caption(advice), "verdict": tried_advice_caption(advice.tried)}
    return {**asdict(advice), "against": against, "tried": tried, **sentences}


def _verdicts(advice: "GradientAdvice") -> dict[str, str]:
    assert advice.tried is not None
    return {f"verdict_{by}": advice.tried.verdict(by) for by in ("per_parameter", "in_reach")}


def _print(advice: "GradientAdvice") -> None:
    from lora_lab.plots.base_gradients import base_gradient_caption, gradient_table, learned_beside_caption, tried_advice_caption

    head, rows = gradient_table(advice)
    for name, *numbers in (head, *rows):
        print(f"{name:44}", *(f"{text:>{max(11, len(title))}}" for text, title in zip(numbers, head[1:], strict=True)))
    print(base_gradient_caption(advice))
    for learned in advice.against:
        print(learned_beside_caption(learned, run=learned.run_id))
    print(tried_advice_caption(advice.tried))
