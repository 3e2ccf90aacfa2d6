"""The table of runs says what the runs say; so do its files."""

import csv
import io
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import lora_lab as ll
from lora_lab.errors import StoreError
from lora_lab.specs import DataSpec, MethodSpec, RunSpec
from lora_lab.sweeps import Run, Sweep
from lora_lab.sweeps.results import COLUMNS, SETTINGS, csv_of, records, results_table, write_csv, write_parquet


def a_run(
    targets: tuple[str, ...] = ("q_proj", "v_proj"), r: int = 4, seed: int = 0, *, score: float | None = 0.5, **settings: Any
) -> Run:
    """A run that was never trained: its score is what the test says."""
    tuning = ll.LoraSpec(r=r, target_modules=targets)
    spec = RunSpec(**{"bench": "digits", "base_sha256": "0" * 64, "tuning": tuning, "seed": seed, **settings})
    metrics = {"status": "finished", "metric": "accuracy", "accuracy": score, "loss": 1.5, "peak_memory_bytes": None}
    return Run(spec.run_id, spec, metrics, Path("runs") / spec.run_id)


# The table


def test_every_run_is_a_row_in_its_order() -> None:
    runs = [a_run(seed=seed) for seed in (3, 1, 2)]
    table = results_table(runs)
    assert list(table["run_id"]) == [run.run_id for run in runs]
    assert list(table["seed"]) == [3, 1, 2]
    assert list(table.columns) == list(COLUMNS)


def test_no_runs_are_a_table_with_the_same_columns_and_types() -> None:
    assert results_table([]).dtypes.equals(results_table([a_run()]).dtypes)


def test_a_row_says_what_the_trained_run_says(digits_run: Run) -> None:
    (row,) = records(results_table([digits_run]))
    metrics, tuning = digits_run.metrics, digits_run.spec.tuning
    for name in (
        "status",
        "step",
        "metric",
        "loss",
        "base_loss",
        "test_loss",
        "trainable_params",
        "head_params",
        "wall_s",
        "step_s",
    ):
        assert row[name] == metrics[name], name
    assert (row["score"], row["base_score"]) == (metrics["accuracy"], metrics["base_accuracy"])
    assert (row["test_score"], row["base_test_score"]) == (metrics["test_accuracy"], metrics["base_test_accuracy"])
    assert row["adapter_file_bytes"] == (digits_run.adapter_dir / "adapter_model.safetensors").stat().st_size
    assert (row["method"], row["r"], row["target_modules"]) == ("lora", 4, ",".join(tuning.target_modules))
    assert (row["forgetting_kept"], row["forgetting_after"]) == ("accuracy", metrics["forgetting"]["after"])
    assert row["adapter_params"] == sum(4 * sum(delta.shape) for delta in digits_run.adapter().values())
    assert row["torch_version"] == metrics["versions"]["torch"]


DIFFERENT: dict[str, Any] = {
    "bench": "reviews",
    "base_sha256": "1" * 64,
    "quant": "int8",
    "steps": 3,
    "batch_size": 3,
    "optimizer": "SGD",
    "learning_rate": 0.1,
    "warmup_steps": 3,
    "weight_decay": 0.1,
    "max_grad_norm": 0.1,
    "eval_every_steps": 3,
    "snapshots": 3,
    "seed": 3,
    "method": "dora",
    "r": 3,
    "lora_alpha": 3.0,
    "lora_dropout": 0.1,
    "target_modules": ("k_proj",),
    "layers_to_transform": (0, 2),
    "rank_pattern": (("q_proj", 2),),
    "bias": "all",
    "init_lora_weights": "gaussian",
    "path": "other.csv",
    "sha256": "f" * 64,
    "task": "text",
    "text_column": "other",
    "label_column": "other",
    "pair_column": "other",
    "prompt_column": "other",
    "completion_column": "other",
}


def variations() -> Iterable[tuple[str, RunSpec]]:
    """A spec changed in one field after the other."""
    plain = RunSpec(bench="base", base_sha256="0" * 64, data=DataSpec(path="rows.csv"), tuning=ll.LoraSpec())
    for field in fields(RunSpec):
        if field.name not in ("data", "tuning", "loraplus_lr_ratio"):
            yield field.name, replace(plain, **{field.name: DIFFERENT[field.name]})
    for field in fields(MethodSpec):
        if field.name != "num_virtual_tokens":
            yield field.name, replace(plain, tuning=replace(plain.tuning, **{field.name: DIFFERENT[field.name]}))
    for field in fields(DataSpec):
        yield field.name, replace(plain, data=replace(plain.data, **{field.name: DIFFERENT[field.name]}))
    plus, prefixed = (replace(plain, tuning=replace(plain.tuning, method=method)) for method in ("lora+", "lora+prefix"))
    yield "no data", replace(plain, data=None)
    yield "loraplus_lr_ratio", plus
    yield "loraplus_lr_ratio again", replace(plus, loraplus_lr_ratio=3.0)
    yield "num_virtual_tokens", prefixed
    yield "num_virtual_tokens again", replace(prefixed, tuning=replace(prefixed.tuning, num_virtual_tokens=3))


def test_whatever_differs_between_two_specs_differs_between_their_rows() -> None:
    """Or a cell of a pivot could hold runs that differ in more than their seed."""
    specs = dict(variations())
    rows = results_table([Run(spec.run_id, spec, {"status": "finished"}, Path("runs")) for spec in specs.values()])
    assert not rows[[*SETTINGS, "seed"]].duplicated().any()
    without_seed = rows[list(SETTINGS)].duplicated(keep=False)
    assert not without_seed.any() or list(specs)[int(without_seed.argmax())] == "seed"


def test_what_was_not_measured_is_missing_and_keeps_its_type() -> None:
    table = results_table([a_run(score=None), a_run(seed=1, score=0.25)])
    assert table["score"].isna().tolist() == [True, False]
    assert table["peak_memory_bytes"].isna().all()
    assert (str(table["score"].dtype), str(table["peak_memory_bytes"].dtype)) == ("Float64", "Int64")
    assert records(table)[0]["score"] is None


def test_what_a_method_has_no_use_for_is_missing() -> None:
    spec = RunSpec(bench="digits", base_sha256="0" * 64, tuning=MethodSpec(method="bitfit"))
    (row,) = records(results_table([Run(spec.run_id, spec, {"status": "finished"}, Path("runs"))]))
    assert [row[name] for name in ("r", "lora_alpha", "target_modules", "target_roles", "loraplus_lr_ratio")] == [None] * 5


@pytest.mark.parametrize(
    ("targets", "roles"),
    [
        (("q_proj", "v_proj"), "q,v"),
        (("value", "query"), "q,v"),
        (("query", "key", "value", "attention.output.dense"), "q,k,v,o"),
        (("model.layers.3.self_attn.q_proj", "v_proj"), "v,model.layers.3.self_attn.q_proj"),
        (("all-linear",), "all-linear"),
    ],
)
def test_targets_are_named_by_what_they_do(targets: tuple[str, ...], roles: str) -> None:
    spec = RunSpec(bench="digits", base_sha256="0" * 64, tuning=ll.LoraSpec(target_modules=targets))
    (row,) = records(results_table([Run(spec.run_id, spec, {"status": "finished"}, Path("runs"))]))
    assert row["target_roles"] == roles


def test_a_sweep_gives_its_table() -> None:
    runs = tuple(a_run(seed=seed) for seed in range(2))
    pd.testing.assert_frame_equal(Sweep(runs, (), {}, 0.0).table(), results_table(runs))


# Files


def test_csv_has_every_cell_and_nothing_where_a_number_is_missing() -> None:
    runs = [a_run(score=None), a_run(seed=1, score=1 / 3)]
    lines = list(csv.DictReader(io.StringIO(csv_of(results_table(runs)))))
    assert [line["score"] for line in lines] == ["", repr(1 / 3)]
    assert [line["r"] for line in lines] == ["4", "4"]
    assert [line["target_modules"] for line in lines] == ["q_proj,v_proj"] * 2
    assert list(lines[0]) == list(COLUMNS)


@pytest.mark.parametrize("bench", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_no_text_of_a_csv_is_a_formula(bench: str) -> None:
    """Where the name of a base or of a data file would be one; a number may be negative."""
    run = a_run(bench=bench, score=-0.25, data=DataSpec(path=bench))
    (line,) = csv.DictReader(io.StringIO(csv_of(results_table([run])), newline=""))
    assert line["bench"] == line["data_path"] == f"'{bench}"
    assert line["score"] == "-0.25"
    assert not any(cell.startswith(("=", "+", "@", "\t", "\r", "\n")) for cell in line.values())


def test_parquet_gives_the_table_back(tmp_path: Path) -> None:
    table = results_table([a_run(score=None), a_run(seed=1, bench="=1"), a_run(("q_proj",), 1)])
    write_parquet(table, tmp_path / "new" / "runs.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "new" / "runs.parquet"), table)


def test_csv_is_written_as_it_is_printed(tmp_path: Path) -> None:
    table = results_table([a_run()])
    write_csv(table, tmp_path / "new" / "runs.csv")
    assert (tmp_path / "new" / "runs.csv").read_text() == csv_of(table)


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path, write: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"must be one that can be written\. Got .*file/below"):
        write(results_table([a_run()]), tmp_path / "file" / "below")
