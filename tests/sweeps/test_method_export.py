"""The bench as files: CSV, and PEFT's schema as its own `method_comparison` reads it."""

import csv
import io
import json
from datetime import datetime
from typing import Any

import pytest

import lora_lab as ll
from lora_lab.analysis.comparison import compare
from lora_lab.analysis.method_records import MethodRow, MethodTable, RateScore
from lora_lab.errors import StoreError
from lora_lab.sweeps.method_export import csv_of, peft_files, peft_record, write_text

# What huggingface/peft, method_comparison/processing.py `preprocess` takes out of a record, and where from.
READ_BY_PEFT = {
    "run_info": ("experiment_name", "train_config", "peft_config", "total_time", "peft_branch", "created_at"),
    "train_info": (
        "status",
        "metrics",
        "train_time",
        "file_size",
        "accelerator_memory_reserved_avg",
        "accelerator_memory_max",
        "accelerator_memory_reserved_99th",
    ),
    "meta_info": ("package_info", "system_info"),
}
# What `log_results` writes besides.
WRITTEN_BY_PEFT = {
    "run_info": ("error_msg",),
    "train_info": ("num_trainable_params", "num_total_params"),
    "meta_info": ("model_info", "dataset_info", "pytorch_info"),
}
LAST_METRICS = ("step", "test accuracy", "train loss", "train samples", "train total tokens")
VERSIONS = ("transformers", "peft", "datasets", "bitsandbytes", "torch")
# Fields of the dataclass TrainConfig in method_comparison/MetaMathQA/utils.py that its results carry.
TRAIN_CONFIG = (
    "model_id dtype max_seq_length batch_size batch_size_eval max_steps eval_steps compile query_template seed grad_norm_clip"
    " optimizer_type optimizer_kwargs lr_scheduler use_amp autocast_adapter_dtype generation_kwargs attn_implementation use_gc"
).split()


@pytest.fixture(scope="module")
def records(digits_run: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """A record of a LoRA run, of full fine-tuning and of a method that PEFT does not have, as they come out of their files."""
    runs = tmp_path_factory.mktemp("runs")
    trained = [digits_run, *(ll.train("digits", method, steps=4, runs=runs) for method in ("full", "bitfit"))]
    found = [json.loads(text) for text in peft_files(trained).values()]
    return {record["run_info"]["experiment_name"].split("/")[0]: record for record in found}


@pytest.mark.parametrize("method", ["lora", "full", "bitfit"])
def test_a_record_has_every_key_of_peft_s_schema(records: dict[str, dict[str, Any]], method: str) -> None:
    record = records[method]
    for part in READ_BY_PEFT:
        assert set(record[part]) == {*READ_BY_PEFT[part], *WRITTEN_BY_PEFT[part]}
    assert set(TRAIN_CONFIG) <= set(record["run_info"]["train_config"])
    assert set(LAST_METRICS) <= set(record["train_info"]["metrics"][-1])
    for name in VERSIONS:
        assert f"{name}-version" in record["meta_info"]["package_info"]


def preprocess(row: dict[str, Any]) -> dict[str, Any]:
    """One record as `processing.preprocess` reads it: plain indexing, so that a key that is missing raises."""
    config, last = row["run_info"]["peft_config"], row["train_info"]["metrics"][-1]
    return {
        "peft_type": config["peft_type"] if config else "full-finetuning",
        "model_id": row["run_info"]["train_config"]["model_id"],
        "test_accuracy": last["test accuracy"],
        "train_loss": last["train loss"],
        "train_samples": last["train samples"],
        "file_size": row["train_info"]["file_size"],
        "train_time": row["train_info"]["train_time"],
        "total_time": row["run_info"]["total_time"],
        "created_at": datetime.fromisoformat(row["run_info"]["created_at"]),
    }


def test_peft_s_loader_reads_the_run_that_was_trained(records: dict[str, dict[str, Any]], digits_run: Any) -> None:
    read = preprocess(records["lora"])
    assert read["peft_type"] == "LORA"
    assert read["test_accuracy"] == digits_run.metrics["test_accuracy"]
    assert read["train_samples"] == 40 * digits_run.spec.batch_size
    assert read["file_size"] == digits_run.metrics["adapter_file_bytes"]
    assert 0 < read["train_time"] < read["total_time"]
    assert read["created_at"].tzinfo is not None


def test_methods_keep_apart_in_peft_s_eyes(records: dict[str, dict[str, Any]]) -> None:
    types = {method: preprocess(record)["peft_type"] for method, record in records.items()}
    assert types == {"lora": "LORA", "full": "full-finetuning", "bitfit": "BITFIT"}


def test_the_curve_is_the_run_s_own(records: dict[str, dict[str, Any]], digits_run: Any) -> None:
    entries = records["lora"]["train_info"]["metrics"][:-1]
    evals = [event for event in digits_run.progress().evals if event.step > 0]
    assert [(e["step"], e["valid accuracy"]) for e in entries] == [(event.step, event.score) for event in evals]
    steps = digits_run.progress().steps
    assert entries[0]["train loss"] == pytest.approx(sum(s.loss for s in steps[: evals[0].step]) / evals[0].step)


def test_what_was_not_measured_is_null(records: dict[str, dict[str, Any]]) -> None:
    info = records["lora"]["train_info"]
    assert info["accelerator_memory_max"] is None  # no GPU
    assert info["metrics"][-1]["train total tokens"] is None  # pictures


def test_files_are_named_as_peft_names_them(digits_run: Any) -> None:
    (name,) = peft_files([digits_run])
    assert name == peft_record(digits_run)["run_info"]["experiment_name"].replace("/", "--") + ".json"
    assert name.startswith("lora--digits-r4-lr0.005-seed0")


def test_csv_holds_every_row_and_leaves_gaps() -> None:
    fixed = {"learning_rate": 1e-3, "rates": (RateScore(1e-3, 0.5, 1.0),), "at_edge": True, "head_params": 10, "validation": 0.5}
    rows = [MethodRow(method="lora", r=r, seeds=(0, 1), scores=(0.5, 0.7), trainable_params=100 * r, **fixed) for r in (2, 8)]
    rows.append(MethodRow(method="full", r=None, seeds=(0, 1), scores=(0.9, 0.92), trainable_params=9000, **fixed))
    table = MethodTable("digits", "accuracy", tuple(rows), (0, 1))
    lines = list(csv.DictReader(io.StringIO(csv_of(table, compare(table)))))
    assert [(line["method"], line["r"]) for line in lines] == [("full", ""), ("lora", "2"), ("lora", "8")]
    assert float(lines[1]["test_mean"]) == pytest.approx(0.6)
    assert float(lines[1]["test_sd"]) == pytest.approx(0.02**0.5)
    assert (lines[1]["adapter_params"], lines[1]["head_params"]) == ("190", "10")
    assert (lines[1]["memory_measured_bytes"], lines[1]["forgetting_after"]) == ("", "")
    assert lines[2]["place"] == ""  # validation chose the other budget


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="The file must be one that can be written"):
        write_text(tmp_path / "file" / "below.csv", "x")
