"""Specs refuse bad values at once, survive JSON, and name their run."""

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

from lora_lab.errors import SpecError
from lora_lab.specs import METHODS, DataSpec, LoraSpec, MethodSpec, RunSpec, resolve_alpha, unique
from lora_lab.sweep_spec import SweepSpec

NAN, INF = math.nan, math.inf
RUN = RunSpec(bench="digits", base_sha256="ab" * 32)


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users run it: tests alone check types at the call, and specs must refuse wrong ones themselves."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def refused(owner: str, field: str, allowed: str, got: object) -> str:
    return f"The {field} parameter of {owner} must be {allowed}. Got {got!r}."


@pytest.mark.parametrize(
    ("field", "allowed", "got"),
    [
        *(("r", "an int of at least 1", got) for got in (0, -1, 1.0, 2.5, "8", None, True)),
        *(("lora_alpha", "a number above 0", got) for got in (0, -1.0, NAN, INF, "16", None)),
        *(("lora_dropout", "a number in 0..1, 1 left out", got) for got in (-0.1, 1, 1.5, NAN, "0.1", None)),
        *(("num_virtual_tokens", "an int of at least 1", got) for got in (0, "8")),
        ("rank_pattern", "made of regular expressions with ranks of at least 1", (("q(", 4),)),
        ("rank_pattern", "made of regular expressions with ranks of at least 1", (("q", 0),)),
        ("init_lora_weights", "one of default, gaussian, orthogonal, pissa, olora, eva, loftq", "zeros"),
        *(("target_modules", "a tuple of names", got) for got in (["q"], "q", ("q", ""), ("q", 1), None)),
    ],
)
def test_a_method_spec_refuses_what_is_out_of_range(field: str, allowed: str, got: object) -> None:
    with pytest.raises(SpecError) as refusal:
        LoraSpec(**{field: got})
    assert str(refusal.value) == refused("MethodSpec", field, allowed, got)


@pytest.mark.parametrize(
    ("field", "allowed", "got"),
    [
        *(("steps", "an int of at least 0", got) for got in (-1, 1.5, "9", True)),
        *(("batch_size", "an int of at least 1", got) for got in (0, 1.5)),
        *(("warmup_steps", "an int of at least 0", got) for got in (-1, None)),
        *(("eval_every_steps", "an int of at least 1", got) for got in (0, 2.0)),
        *(("snapshots", "an int in 0..steps=200", got) for got in (-1, 201, 1.0, True, None)),
        *(("seed", "an int of at least 0", got) for got in (-1, 0.5)),
        *(("learning_rate", "a number above 0", got) for got in (0, -1e-3, NAN, INF, "1e-3")),
        *(("max_grad_norm", "a number above 0", got) for got in (0.0, NAN)),
        *(("weight_decay", "a number of at least 0", got) for got in (-0.1, NAN, INF, "0")),
    ],
)
def test_a_run_spec_refuses_what_is_out_of_range(field: str, allowed: str, got: object) -> None:
    with pytest.raises(SpecError) as refusal:
        replace(RUN, **{field: got})
    assert str(refusal.value) == refused("RunSpec", field, allowed, got)


def test_a_data_spec_refuses_a_task_that_is_none() -> None:
    with pytest.raises(SpecError) as refusal:
        DataSpec(path="x.csv", task="chat")
    allowed = "one of classification, regression, completion, text, or empty"
    assert str(refusal.value) == refused("DataSpec", "task", allowed, "chat")


@pytest.mark.parametrize("spec", [LoraSpec(), RUN, SweepSpec(), DataSpec(path="x.csv")], ids=lambda spec: type(spec).__name__)
def test_a_spec_cannot_be_changed(spec: object) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(spec, fields(spec)[0].name, 3)


@pytest.mark.parametrize(("r", "alpha", "plain", "rslora"), [(1, 16, 16, 16), (16, 16, 1, 4), (64, 2, 1 / 32, 1 / 4)])
def test_scaling_is_alpha_over_r_or_over_its_root(r: int, alpha: float, plain: float, rslora: float) -> None:
    assert LoraSpec(r=r, lora_alpha=alpha).scaling == plain
    assert LoraSpec(r=r, lora_alpha=alpha, use_rslora=True).scaling == rslora


@pytest.mark.parametrize(("steps", "snapshots"), [(0, 0), (7, 0), (7, 1), (7, 2), (7, 7), (40, 4), (1000, 31)])
def test_snapshots_are_taken_at_even_steps_and_the_last_is_the_end(steps: int, snapshots: int) -> None:
    on_the_way = replace(RUN, steps=steps, snapshots=snapshots).snapshot_steps
    assert len(on_the_way) == max(snapshots - 1, 0)
    gaps = {after - before for before, after in pairwise((0, *on_the_way, steps))} if snapshots else {1}
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


OTHER: dict[str, Any] = {
    "bench": "digits:inverted",
    "base_sha256": "cd" * 32,
    "data": DataSpec(path="x.csv"),
    "quant": "nf4",
    "optimizer": "SGD",
    "loraplus_lr_ratio": 8.0,
    "steps": 201,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "warmup_steps": 9,
    "weight_decay": 0.1,
    "max_grad_norm": 0.5,
    "eval_every_steps": 25,
    "snapshots": 3,
    "seed": 1,
}
OTHER_TUNING: dict[str, Any] = {
    "method": "dora",
    "r": 4,
    "lora_alpha": 8.0,
    "lora_dropout": 0.1,
    "target_modules": ("q",),
    "layers_to_transform": (1,),
    "rank_pattern": (("q", 2),),
    "bias": "all",
    "init_lora_weights": "pissa",
    "num_virtual_tokens": 4,
}
OTHER_DATA: dict[str, Any] = {
    "path": "y.csv",
    "text_column": "review",
    "label_column": "stars",
    "sha256": "ef" * 32,
    "task": "regression",
    "prompt_column": "question",
    "completion_column": "answer",
    "pair_column": "other",
}
VARIANTS = [replace(RUN, **{name: value}) for name, value in OTHER.items()]
VARIANTS += [replace(RUN, tuning=replace(RUN.tuning, **{name: value})) for name, value in OTHER_TUNING.items()]
VARIANTS += [replace(RUN, data=replace(OTHER["data"], **{name: value})) for name, value in OTHER_DATA.items()]


def test_every_field_is_varied_here() -> None:
    assert {field.name for field in fields(RunSpec)} == {*OTHER, "tuning"}
    assert {field.name for field in fields(MethodSpec)} == set(OTHER_TUNING)
    assert {field.name for field in fields(DataSpec)} == set(OTHER_DATA)


def test_every_field_of_a_spec_changes_the_run_it_names() -> None:
    ids = [spec.run_id for spec in (RUN, *VARIANTS)]
    assert len(set(ids)) == len(ids)


def test_peft_words_name_the_method() -> None:
    assert LoraSpec(r=2) == MethodSpec(r=2)
    assert LoraSpec(use_rslora=True) == MethodSpec(method="rslora")
    assert LoraSpec(use_dora=True) == MethodSpec(method="dora")
    with pytest.raises(SpecError, match="use_dora parameter of LoraSpec must be False where use_rslora"):
        LoraSpec(use_dora=True, use_rslora=True)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_has_no_use_for_makes_no_second_spec_of_it(method: str) -> None:
    info = METHODS[method]
    other = MethodSpec(method=method, r=3, lora_alpha=2.0, lora_dropout=0.5, target_modules=("q",), num_virtual_tokens=3)
    said = other.canonical()
    assert said.canonical() == said
    assert said.r == (3 if info.r_is else 8)
    assert said.target_modules == (("q",) if info.has_targets else ())
    assert said.num_virtual_tokens == (3 if "+p" in method else 8)
    assert said.lora_alpha == (2.0 if "lora" in method else 16.0 if method != "dora" else 2.0)


def test_a_combination_is_lora_and_a_method_of_virtual_tokens() -> None:
    lora, tokens = MethodSpec(method="lora+prefix", r=4, num_virtual_tokens=5).parts()
    assert (lora.method, lora.r, tokens.method, tokens.r) == ("lora", 4, "prefix", 5)
    assert MethodSpec(r=4).parts() == (MethodSpec(r=4),)
    assert [MethodSpec(method=m, r=3, num_virtual_tokens=5).virtual_tokens for m in ("lora", "prefix", "lora+preembed")] == [
        0,
        3,
        5,
    ]


def test_equal_specs_name_one_run() -> None:
    whole = LoraSpec(r=8, lora_alpha=16, lora_dropout=0)  # ints where the fields are floats
    again = RunSpec(bench="digits", base_sha256="ab" * 32, tuning=whole, weight_decay=0, max_grad_norm=1)
    assert again == RUN
    assert again.run_id == RUN.run_id


def test_a_run_id_is_twelve_hex_digits_and_the_same_in_every_process(repository: Path) -> None:
    """Nothing of a process enters it, such as the salt of Python's own hashes."""
    code = "from lora_lab.specs import RunSpec; print(RunSpec(bench='digits', base_sha256='ab' * 32).run_id)"
    environment = {**os.environ, "PYTHONPATH": str(repository), "PYTHONHASHSEED": "7"}
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == RUN.run_id
    assert re.fullmatch("[0-9a-f]{12}", RUN.run_id)


@pytest.mark.parametrize("spec", [RUN, *VARIANTS])
def test_a_run_spec_survives_json(spec: RunSpec) -> None:
    again = RunSpec.from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False)))
    assert again == spec
    assert again.run_id == spec.run_id


@pytest.mark.parametrize(
    ("alpha", "r", "expected"),
    [(16, 8, 16), (0.5, 8, 0.5), ("r", 8, 8), ("0.5r", 8, 4), (" 2r ", 3, 6), ("1e1", 8, 10), ("2 r", 8, 16)],
)
def test_alpha_is_a_number_or_a_multiple_of_r(alpha: float | str, r: int, expected: float) -> None:
    assert resolve_alpha(alpha, r) == expected


@pytest.mark.parametrize("alpha", ["", "two", "2rr", "r2", "2*r", "1,5"])
def test_any_other_alpha_is_refused(alpha: str) -> None:
    with pytest.raises(
        SpecError, match="lora_alpha parameter of SweepSpec must be a number above 0, or a multiple of r"
    ) as refusal:
        resolve_alpha(alpha, 8)
    assert repr(alpha) in str(refusal.value)


def test_layers_are_one_set_however_they_are_named() -> None:
    assert MethodSpec(layers_to_transform=(3, 1, 3)) == MethodSpec(layers_to_transform=(1, 3))


def test_unique_keeps_the_first_of_each_in_order() -> None:
    assert unique([3, 1, 3, 2, 1]) == (3, 1, 2)
