"""Runs as one table, a row a run: for pandas, for a spreadsheet, for Parquet. pivots.py sums it up."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from lora_lab.errors import StoreError
from lora_lab.roles import ROLES, role_of
from lora_lab.specs import METHODS, DataSpec, MethodSpec, RunSpec
from lora_lab.sweeps.run import Run

TEXT, INT, FLOAT = "string", "Int64", "Float64"  # pandas' nullable types: a number that is missing stays missing

# What a run is, but for its seed. Runs with all of these alike differ in the seed alone.
SETTINGS: dict[str, str] = {
    "bench": TEXT,
    "base_sha256": TEXT,
    "data_path": TEXT,
    "data_sha256": TEXT,
    "data_task": TEXT,
    "text_column": TEXT,
    "label_column": TEXT,
    "pair_column": TEXT,
    "prompt_column": TEXT,
    "completion_column": TEXT,
    "method": TEXT,
    "r": INT,
    "lora_alpha": FLOAT,
    "lora_dropout": FLOAT,
    "target_modules": TEXT,
    "layers_to_transform": TEXT,
    "rank_pattern": TEXT,
    "bias": TEXT,
    "init_lora_weights": TEXT,
    "num_virtual_tokens": INT,
    "quant": TEXT,
    "optimizer": TEXT,
    "learning_rate": FLOAT,
    "loraplus_lr_ratio": FLOAT,
    "steps": INT,
    "batch_size": INT,
    "warmup_steps": INT,
    "weight_decay": FLOAT,
    "max_grad_norm": FLOAT,
    "eval_every_steps": INT,
    "snapshots": INT,
}
# What came of it.
OUTCOMES: dict[str, str] = {
    "status": TEXT,
    "message": TEXT,
    "step": INT,
    "metric": TEXT,
    "score": FLOAT,
    "base_score": FLOAT,
    "test_score": FLOAT,
    "base_test_score": FLOAT,
    "echo_score": FLOAT,
    "echo_test_score": FLOAT,
    "loss": FLOAT,
    "base_loss": FLOAT,
    "test_loss": FLOAT,
    "base_test_loss": FLOAT,
    "forgetting_kept": TEXT,
    "forgetting_before": FLOAT,
    "forgetting_after": FLOAT,
    "trainable_params": INT,
    "adapter_params": INT,
    "head_params": INT,
    "total_params": INT,
    "adapter_file_bytes": INT,
    "wall_s": FLOAT,
    "step_s": FLOAT,
    "peak_memory_bytes": INT,
    "peak_reserved_bytes": INT,
    "longest_tokens": INT,
    "device": TEXT,
    "precision": TEXT,
    "base_note": TEXT,
    "torch_version": TEXT,
    "transformers_version": TEXT,
    "peft_version": TEXT,
    "adapter_dir": TEXT,
}
COLUMNS = {"run_id": TEXT, **SETTINGS, "target_roles": TEXT, "seed": INT, **OUTCOMES}
VALUES = tuple(name for name, kind in OUTCOMES.items() if kind != TEXT)
_AXES = tuple(SETTINGS)[tuple(SETTINGS).index("method") :]
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def results_table(runs: Iterable[Run]) -> pd.DataFrame:
    """A row a run, columns named as in spec and metrics. What was not measured, and what a method has no use for, is missing.

    `score` is by the metric that `metric` names, `target_roles` what the target modules do, so that bases which name their
    matrices differently stand in one column, `adapter_params` what is trained besides the head.
    """
    rows = [_row(run) for run in runs]
    columns = {name: pd.array([row.get(name) for row in rows], dtype=kind) for name, kind in COLUMNS.items()}
    return pd.DataFrame(columns)


def _row(run: Run) -> dict[str, Any]:
    return {"run_id": run.run_id, **settings_of(run.spec), "seed": run.spec.seed, **_outcomes(run)}


def settings_of(spec: RunSpec) -> dict[str, Any]:
    """The spec as flat columns; None where the method has no use for one."""
    tuning = spec.tuning
    row = {name: getattr(spec, name) for name in RunSpec.__dataclass_fields__ if name not in ("data", "tuning")}
    row |= {name: getattr(tuning, name) for name in MethodSpec.__dataclass_fields__}
    row["target_modules"], row["target_roles"] = ",".join(tuning.targets), _roles(tuning.targets)
    row["layers_to_transform"] = None if tuning.layers_to_transform is None else ",".join(map(str, tuning.layers_to_transform))
    row["rank_pattern"] = ",".join(f"{pattern}={r}" for pattern, r in tuning.rank_pattern) or None
    row |= dict.fromkeys(tuning.unused_fields)
    if tuning.method != "lora+":
        row["loraplus_lr_ratio"] = None
    if not METHODS[tuning.method].has_targets:
        row["target_roles"] = None
    return row | (_data(spec.data) if spec.data else {})


def axes_of(specs: Iterable[RunSpec]) -> list[dict[str, Any]]:
    """What runs of one bench may differ in, seed included, for a plot with an axis a setting; None where a run has none."""
    return [{name: settings_of(spec).get(name) for name in _AXES} | {"seed": spec.seed} for spec in specs]


def _data(data: DataSpec) -> dict[str, str]:
    named = {name: getattr(data, name) for name in DataSpec.__dataclass_fields__}
    return {(name if name in SETTINGS else f"data_{name}"): value for name, value in named.items()}


def _roles(targets: Sequence[str]) -> str:
    """`q,v` on every base; a target of one layer alone keeps its name, as does one without a role."""
    roles = [target if _is_one_of_a_kind(target) else role_of(target) for target in targets]
    return ",".join(sorted(dict.fromkeys(roles), key=role_place))


def role_place(role: str) -> int:
    """Where a role stands among the others: q, k, v, o as in the paper, what has none last."""
    return [*ROLES, role].index(role)


def _is_one_of_a_kind(target: str) -> bool:
    return role_of(target) == "other" or any(part.isdigit() for part in target.split("."))


def _outcomes(run: Run) -> dict[str, Any]:
    metrics, name = run.metrics, run.metrics.get("metric", "accuracy")
    forgetting, versions = metrics.get("forgetting") or {}, metrics.get("versions") or {}
    trained, head = metrics.get("trainable_params"), metrics.get("head_params")
    return {
        **{column: metrics.get(column) for column in OUTCOMES},
        "metric": name,
        **{column: metrics.get(column.replace("score", name)) for column in OUTCOMES if column.endswith("score")},
        **{f"forgetting_{part}": forgetting.get(part) for part in ("kept", "before", "after")},
        **{f"{package}_version": versions.get(package) for package in ("torch", "transformers", "peft")},
        "adapter_params": None if trained is None or head is None else trained - head,
        "adapter_dir": str(run.adapter_dir),
    }


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The table's rows, as JSON says them: what is missing is None."""
    return [{str(name): _plain(value) for name, value in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


# Files


def csv_of(table: pd.DataFrame) -> str:
    """The table as CSV; what is missing is an empty cell.

    A text that a spreadsheet would take for a formula begins with an apostrophe there, as one would type it.
    """
    texts = table.select_dtypes("string").columns
    safe = table.assign(**{name: table[name].map(no_formula, na_action="ignore") for name in texts})
    return str(safe.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC))


def no_formula(text: str) -> str:
    """The text, after an apostrophe where a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def write_csv(table: pd.DataFrame, path: str | Path) -> None:
    """`csv_of` in a file, its folder made where it is missing.

    Raises:
        StoreError: it cannot be written.
    """
    with _writable(path) as file:
        file.write_text(csv_of(table), encoding="utf-8")


def write_parquet(table: pd.DataFrame, path: str | Path) -> None:
    """The table as Parquet, types and missing values as they are.

    Raises:
        StoreError: it cannot be written.
    """
    with _writable(path) as file:
        table.to_parquet(file, engine="pyarrow", index=False)


@contextmanager
def _writable(path: str | Path) -> Iterator[Path]:
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield file
    except OSError as err:
        raise StoreError(f"The file must be one that can be written. Got {str(path)!r}: {err.strerror}.") from None
