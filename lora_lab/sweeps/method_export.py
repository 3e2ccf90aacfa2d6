"""The method bench as files for others: one CSV of its rows, and one JSON a run in the schema of PEFT's `method_comparison`.

Source: huggingface/peft, method_comparison/MetaMathQA/utils.py (`log_results`) and method_comparison/processing.py.
"""

import csv
import io
import json
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean
from typing import Any

from lora_lab.analysis.method_records import Comparison, MethodRow, MethodTable, mean_of, sd_of
from lora_lab.benches import Bench, find_bench
from lora_lab.errors import StoreError
from lora_lab.events import EvalEvent
from lora_lab.sweeps.progress import RunProgress
from lora_lab.sweeps.run import Run

_STATUS = {"finished": "success", "stopped": "canceled"}
_PACKAGES = ("transformers", "peft", "datasets", "bitsandbytes", "torch")


def csv_of(table: MethodTable, comparison: Comparison) -> str:
    """The rows as CSV, methods in their order; what was not measured is an empty cell."""
    places = {placed.row.name: i for i, placed in enumerate(comparison.order)}
    methods = [placed.row.method for placed in comparison.order]
    rows = sorted(table.rows, key=lambda row: (methods.index(row.method), row.name not in places, row.r or 0))
    text = io.StringIO()
    lines = [_csv_row(row, table, comparison) for row in rows]
    writer = csv.DictWriter(text, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _csv_row(row: MethodRow, table: MethodTable, comparison: Comparison) -> dict[str, Any]:
    return {
        "place": comparison.place(row),
        "method": row.method,
        "r": row.r,
        "metric": table.metric_name,
        "test_mean": row.mean,
        "test_sd": row.sd,
        "seeds": " ".join(map(str, row.seeds)),
        "test_scores": " ".join("" if score is None else f"{score:.6g}" for score in row.scores),
        "base_test_score": row.base_score,
        "validation_mean": row.validation,
        "trainable_params": row.trainable_params,
        "adapter_params": row.adapter_params,
        "head_params": row.head_params,
        "adapter_file_bytes": row.file_bytes,
        "step_s": row.step_s,
        "memory_predicted_bytes": row.memory_bytes,
        "memory_measured_bytes": row.measured_bytes,
        "forgetting_kept": row.kept,
        "forgetting_before": mean_of(row.before),
        "forgetting_after": mean_of(row.after),
        "forgetting_after_sd": sd_of(row.after),
        "learning_rate": row.learning_rate,
        "learning_rates_tried": " ".join(f"{rate.learning_rate:g}" for rate in row.rates),
        "rate_at_edge": row.at_edge,
        "diverged_seeds": " ".join(map(str, row.diverged)),
        "runs": " ".join(row.run_ids),
    }


def write_text(path: str | Path, text: str) -> None:
    """Write the file, its folder made where it is missing.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")
    except OSError as err:
        raise StoreError(f"The file must be one that can be written. Got {str(path)!r}: {err.strerror}.") from None


def peft_files(runs: Iterable[Run]) -> dict[str, str]:
    """File name -> JSON text, one a run."""
    records = (peft_record(run) for run in runs)
    return {
        record["run_info"]["experiment_name"].replace("/", "--") + ".json": json.dumps(record, indent=2, allow_nan=False) + "\n"
        for record in records
    }


def peft_record(run: Run) -> dict[str, Any]:
    """One run in PEFT's schema; what was not measured here is None.

    PEFT takes a run without `peft_config` for full fine-tuning; a method that PEFT does not have is named there in its words.
    `test accuracy` is None where the task has another metric, which stands beside it.
    """
    spec, metrics, bench = run.spec, run.metrics, find_bench(run.spec.bench, run.spec.data)
    success = metrics["status"] == "finished"
    return {
        "run_info": {
            "created_at": _began(run),
            "total_time": metrics["wall_s"],
            "experiment_name": _experiment(run),
            "peft_branch": None,
            "train_config": _train_config(run, bench),
            "peft_config": _peft_config(run),
            "error_msg": metrics["message"],
        },
        "train_info": {
            "accelerator_memory_reserved_avg": None,
            "accelerator_memory_max": metrics.get("peak_reserved_bytes"),
            "accelerator_memory_reserved_99th": None,
            "train_time": _train_s(run.progress()),
            "file_size": metrics.get("adapter_file_bytes"),
            "num_trainable_params": metrics["trainable_params"],
            "num_total_params": metrics["total_params"],
            "status": "success" if success else _STATUS.get(metrics["status"], "failed"),
            "metrics": _metrics(run),
        },
        "meta_info": {
            "model_info": {"sha": None, "created_at": None, "weights_sha256": spec.base_sha256},
            "dataset_info": {spec.bench: {"sha": spec.data.sha256 if spec.data else None, "created_at": None}},
            "package_info": _package_info(metrics["versions"]),
            "system_info": _system_info(metrics["device"]),
            "pytorch_info": None,
        },
    }


def _experiment(run: Run) -> str:
    tuning = run.spec.tuning
    r = f"-r{tuning.r}" if tuning.has_r else ""
    name = "".join(c if c.isalnum() else "-" for c in run.spec.bench.rsplit("/", 1)[-1])
    return f"{tuning.method}/{name}{r}-lr{run.spec.learning_rate:g}-seed{run.spec.seed}-{run.run_id}"


def _began(run: Run) -> str:
    ended_s = (run.folder / "metrics.json").stat().st_mtime
    return datetime.fromtimestamp(ended_s - run.metrics["wall_s"], UTC).isoformat(timespec="seconds")


def _train_config(run: Run, bench: Bench) -> dict[str, Any]:
    spec = run.spec
    plus = {"loraplus_lr_ratio": spec.loraplus_lr_ratio} if spec.tuning.method == "lora+" else {}
    return {
        "model_id": bench.base_name or bench.name,
        "dtype": {"none": "float32", "int8": "int8"}.get(spec.quant, "int4"),
        "max_seq_length": None,
        "batch_size": spec.batch_size,
        "batch_size_eval": None,
        "max_steps": spec.steps,
        "eval_steps": spec.eval_every_steps,
        "compile": False,
        "use_gc": False,
        "query_template": None,
        "seed": spec.seed,
        "grad_norm_clip": spec.max_grad_norm,
        "optimizer_type": "lora+" if plus else spec.optimizer,
        "optimizer_kwargs": {"lr": spec.learning_rate, "weight_decay": spec.weight_decay, **plus},
        "lr_scheduler": None,
        "use_amp": run.metrics["precision"] != "fp32",
        "autocast_adapter_dtype": True,
        "generation_kwargs": None,
        "attn_implementation": None,
    }


def _peft_config(run: Run) -> dict[str, Any] | None:
    """What PEFT wrote beside the adapter; for a method that it does not have, what the lab attached."""
    if run.spec.tuning.method == "full":
        return None
    written = run.adapter_dir / "adapter_config.json"
    if written.is_file():
        return dict(json.loads(written.read_text()))
    return {"peft_type": run.spec.tuning.method.upper(), **run.spec.to_json()["tuning"]}


def _train_s(progress: RunProgress) -> float | None:
    taken = [step.step_s for step in progress.steps]
    known = [step_s for step_s in taken if step_s is not None]
    return sum(known) if known and len(known) == len(taken) else None


def _metrics(run: Run) -> list[dict[str, Any]]:
    """An entry an evaluation as training went on, and the last one on the test split."""
    progress, batch = run.progress(), run.spec.batch_size
    name = run.metrics.get("metric", "accuracy")
    ends = [0, *(event.step for event in progress.evals if event.step > 0)]
    entries = [_entry(progress, event, since, name, batch, "valid") for event, since in _spans(progress.evals, ends)]
    last = {"step": run.metrics["step"], "train loss": entries[-1]["train loss"] if entries else None}
    scored = {"test accuracy": run.score(split="test") if name == "accuracy" else None, f"test {name}": run.score(split="test")}
    samples = {"train samples": run.metrics["step"] * batch, "train total tokens": None}
    return [*entries, {**last, **scored, **samples, "test loss": run.metrics.get("test_loss")}]


def _spans(evals: Sequence[EvalEvent], ends: Sequence[int]) -> list[tuple[EvalEvent, int]]:
    return list(zip([event for event in evals if event.step > 0], ends, strict=False))


def _entry(progress: RunProgress, event: EvalEvent, since: int, name: str, batch: int, split: str) -> dict[str, Any]:
    steps = [step for step in progress.steps if since < step.step <= event.step]
    score = event.loss if name == "loss" else event.score
    taken = [step.step_s for step in steps if step.step_s is not None]
    return {
        "step": event.step,
        f"{split} accuracy": score if name == "accuracy" else None,
        f"{split} {name}": score,
        f"{split} loss": event.loss,
        "train loss": mean(step.loss for step in steps) if steps else None,
        "train samples": event.step * batch,
        "train time": sum(taken) if taken else None,
        "eval time": None,
        "tokens / sec": None,
        "mem allocated avg": None,
        "mem reserved avg": None,
        "elapsed time": event.elapsed_s,
    }


def _package_info(recorded: dict[str, str]) -> dict[str, str | None]:
    """Versions as the run recorded them; of packages that it did not, those that are installed now."""
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        found |= {f"{name}-version": recorded.get(name) or _installed(name), f"{name}-commit-hash": None}
    return found


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _system_info(device: str) -> dict[str, str]:
    said = ("system", "release", "version", "machine", "processor")
    return {**{name: str(getattr(platform, name)()) for name in said}, "accelerator": device}
