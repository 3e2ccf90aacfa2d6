"""The grid that is selected, and what the page says of it before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any, cast, get_args

from lora_lab.benches import Bench, find_bench
from lora_lab.budget import head_params, method_params
from lora_lab.errors import LabError, SpecError
from lora_lab.geometry import Geometry
from lora_lab.specs import LORA_KIN, METHODS, Init, MethodSpec, Quant, RunSpec, unique
from lora_lab.sweep_spec import SweepSpec
from lora_lab.ui import html
from lora_lab.ui.selection import Selection
from lora_lab.units import count, percent

OPTIMIZERS = ("AdamW", "SGD", "Adafactor", "NAdam", "RMSprop", "AdamW8bit", "PagedAdamW8bit")
STARTS = {
    "default": "PEFT's own",
    "gaussian": "Gaussian",
    "orthogonal": "orthogonal",
    "pissa": "PiSSA",
    "olora": "OLoRA",
    "eva": "EVA",
    "loftq": "LoftQ",
}
QUANTS = {"": "as the method says", "none": "whole", "int8": "int8", "nf4": "NF4", "nf4-dq": "NF4, double"}


def grid_of(selection: Selection) -> SweepSpec:
    """The grid; what no chosen method has a use for may be left out.

    Raises:
        SpecError: nothing is chosen where a choice is needed.
    """
    methods = [METHODS[method] for method in selection.methods]
    needed: dict[str, tuple[object, ...]] = {"methods": selection.methods, "seeds": selection.seeds}
    needed |= {"r": selection.r} if any(method.r_is for method in methods) else {}
    needed |= {"targets": selection.targets} if any(method.has_targets for method in methods) else {}
    for name, chosen in needed.items():
        if not chosen:
            raise SpecError(f"The {name} of a sweep must be at least one choice. Got none.")
    return SweepSpec(
        methods=selection.methods,
        r=selection.r or (MethodSpec().r,),
        lora_alpha=(selection.alpha,),
        targets=(targets_of(selection),),
        init_lora_weights=cast(tuple[Init, ...], selection.init) or ("default",),
        seeds=selection.seeds,
        learning_rate=(selection.lr,) if selection.lr is not None else None,
        steps=selection.steps,
        lora_dropout=selection.dropout,
        num_virtual_tokens=selection.tokens,
        snapshots=selection.snapshots,
        quant=cast(Quant, selection.base_quant) or None,
        optimizer=selection.optim or None,
    )


def default_steps(selection: Selection) -> int:
    """What stands for no choice: the bench's own; of a base and data that are still to be named, as many as any."""
    try:
        return find_bench(selection.bench_name, selection.data_spec).defaults.steps
    except LabError:
        return 200


def targets_of(selection: Selection) -> tuple[str, ...]:
    """What was chosen; as long as nothing was, each method's own."""
    return () if selection.targets == Selection().targets else selection.targets


def drawn_targets(selection: Selection) -> tuple[str, ...]:
    """The targets that the drawing shows: those of the chosen method, or what several share by choice."""
    if not any(METHODS[method].has_targets for method in selection.methods):
        return ()
    own = {METHODS[method].default_targets for method in selection.methods if METHODS[method].has_targets}
    return next(iter(own)) if not targets_of(selection) and len(own) == 1 else selection.targets


def targets_note(selection: Selection) -> str:
    """Which of the chosen methods the drawing is not of."""
    without = [METHODS[m].label for m in selection.methods if not METHODS[m].has_targets]
    with_own = [] if targets_of(selection) else [METHODS[m] for m in selection.methods if METHODS[m].has_targets]
    drawn = drawn_targets(selection)
    others = [f"{m.label} takes its own {', '.join(m.default_targets)}" for m in with_own if m.default_targets != drawn]
    none = [f"{' and '.join(without)} {'takes' if len(without) == 1 else 'take'} no targets"] if without else []
    return ". ".join([*others, *none]) + ("." if others or none else "")


def offered(selection: Selection) -> Selection:
    """The selection without what the page has no choice for, as an address may name anything."""
    default = Selection()
    fields: dict[str, Any] = {
        "methods": tuple(m for m in selection.methods if m in METHODS),
        "init": tuple(i for i in selection.init if i in get_args(Init)) or default.init,
        "base_quant": selection.base_quant if selection.base_quant in QUANTS else default.base_quant,
    }
    return replace(selection, **fields)


def uses(selection: Selection) -> dict[str, bool]:
    """Which of the rarer controls mean anything to the methods chosen."""
    kin = any(method in LORA_KIN for method in selection.methods)
    return {"init": kin, "dropout": kin, "tokens": any(method.startswith("lora+pre") for method in selection.methods)}


def rate_hint(specs: Sequence[RunSpec]) -> str:
    """What stands in the empty field: the one rate, or that each method has its own."""
    rates = unique(spec.learning_rate for spec in specs)
    return f"{rates[0]:g}" if len(rates) == 1 else "each method's own"


def costs(bench: Bench, geometry: Geometry, selection: Selection) -> str:
    """Trainable parameters of every method and rank chosen."""
    if drawn_targets(selection) == () and any(METHODS[m].has_targets for m in selection.methods):
        return html.say("No matrix is chosen: click at least one.", kind="error")
    rows = {method: _params(geometry, method, selection) for method in selection.methods}
    head = head_params(geometry, bench.head_modules(geometry))
    plus = f"<span>and {count(head)} for the head</span>" if head else ""
    of = f"<span>trainable, of {count(geometry.total_params)}</span>"
    cells = _one_method(geometry, next(iter(rows.values()))) if len(rows) == 1 else _several(rows, selection.r)
    return f'<div class="lab-counts" aria-live="polite">{cells}{of}{plus}</div>'


def _params(geometry: Geometry, method: str, selection: Selection) -> dict[int | None, int]:
    """Parameters by r; under None where the method has no r, and nothing where the base has nothing to train."""
    ranks: tuple[int | None, ...] = selection.r if METHODS[method].r_is else (None,)
    targets = targets_of(selection) if METHODS[method].has_targets else ()
    found: dict[int | None, int] = {}
    for r in ranks:
        spec = MethodSpec(method=method, r=r or 1, target_modules=targets, num_virtual_tokens=selection.tokens)
        try:
            found[r] = method_params(geometry, spec)
        except LabError:  # the plan has the sentence
            continue
    return found


def _one_method(geometry: Geometry, params: Mapping[int | None, int]) -> str:
    named = ((f"r {r}: " if r else "", n) for r, n in params.items())
    return "".join(f"<span>{name}<b>{n:,}</b> ({percent(geometry.share_of(n), 2)})</span>" for name, n in named)


def _several(rows: Mapping[str, Mapping[int | None, int]], ranks: Sequence[int]) -> str:
    """A row a method, a column a rank; a method without rank has one number."""
    columns = list(ranks) if any(None not in params for params in rows.values()) else []
    head = "".join(f"<th>r {r}</th>" for r in columns) if columns else "<th></th>"
    body = ""
    for method, params in rows.items():
        wide = f'<td class="wide" colspan="{max(len(columns), 1)}">{params[None]:,}</td>' if None in params else ""
        cells = wide or "".join(f"<td>{params[r]:,}</td>" if r in params else "<td></td>" for r in columns)
        body += f"<tr><td>{escape(METHODS[method].label)}</td>{cells}</tr>"
    return f'<table class="lab-table lab-params"><tr><th></th>{head}</tr>{body}</table>'
