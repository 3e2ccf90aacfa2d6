"""`budget`: what a configuration costs before anything runs."""

import argparse
from typing import Any

from lora_lab.cli.flags import command, method_flags, method_spec, number, print_json
from lora_lab.units import gigabytes

# The core is imported inside each command: `--help` and the other commands wait for no torch.
# ruff: noqa: PLC0415


def add(commands: Any) -> None:
    """Put `budget` on the parser."""
    _budget_flags(command(commands, "budget", _budget, "what a configuration costs in parameters and memory"))


def _budget_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", required=True, help="a name of the catalogue, a config.json, a folder or a Hub id")
    method_flags(command)
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
        made = budget(arguments.model, method_spec(arguments), trace=arguments.trace, **step)
    most = most_that_fits(made, card) if card else {}
    if arguments.json:
        print_json({**made.to_json(), **most, **({"fits_in": made.fits(card)} if card else {})})
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


def _step(arguments: argparse.Namespace) -> dict[str, Any]:
    plain = ("dtype", "adapter_dtype", "optimizer", "attention", "checkpointing", "fused_loss", "kbit_prepare")
    step = {name: getattr(arguments, name) for name in plain}
    step |= {name: number(name, getattr(arguments, name), int) for name in ("batch", "seq")}
    return step | ({"quant": arguments.quant} if arguments.quant else {})
