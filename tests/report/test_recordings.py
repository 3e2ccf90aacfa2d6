"""What is recorded comes back: evidence, spectra and directions, and where it comes from."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lora_lab as ll
from lora_lab.analysis import subspace_similarity
from lora_lab.report import recordings
from lora_lab.report.evidence_json import evidence_of_json, evidence_to_json
from lora_lab.report.provenance import provenance
from lora_lab.report.recordings import RECORDED_DIR, Recorded, record, recorded, recorded_names
from lora_lab.report.records import Evidence
from lora_lab.report.verdicts import findings


def test_evidence_comes_back_with_the_same_findings(evidence: Callable[..., Evidence]) -> None:
    made = evidence()
    back = evidence_of_json(evidence_to_json(made))
    assert findings(back) == findings(made)
    assert back.ranks == made.ranks
    assert back.amplifications == made.amplifications
    name = made.matrices[0]
    assert back.two_ranks.first[name].chance == made.two_ranks.first[name].chance
    assert back.two_ranks.at(name, 2, 3) == pytest.approx(made.two_ranks.at(name, 2, 3), abs=1e-5)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[ll.Run], Path]:
    folder = tmp_path_factory.mktemp("recorded")
    return [ll.train("digits", ll.LoraSpec(r=r), steps=3, runs=folder / "runs") for r in (2, 16)], folder / "kept"


def test_runs_come_back_with_their_spectra_and_leading_directions(
    kept: tuple[list[ll.Run], Path], evidence: Callable[..., Evidence]
) -> None:
    runs, folder = kept
    source = provenance("python -m lora_lab reproduce", device="cpu", runs=2, trained=2, trained_s=1.0)
    record(folder, evidence(), source, runs, whole=[runs[0].run_id])
    back = Recorded(folder)
    assert back.source == source
    config = json.loads((folder / "adapters" / runs[0].run_id / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"]) == ("digits", 2)
    assert [(run.run_id, run.spec, run.is_whole) for run in back.runs] == [(r.run_id, r.spec, r is runs[0]) for r in runs]
    for run, recorded_run in zip(runs, back.runs, strict=True):
        adapter, cut = run.adapter(), recorded_run.adapter()
        for name, delta in adapter.items():
            assert recorded_run.spectra[name] == pytest.approx(delta.singular_values.tolist(), rel=1e-5)
            u, _, _ = delta.compact_svd()
            k = min(8, u.shape[1])
            assert subspace_similarity(u[:, :k], torch.linalg.qr(cut[name].svd()[0][:, :k])[0]) > 0.9999


def test_the_same_content_is_the_same_bytes(
    kept: tuple[list[ll.Run], Path], evidence: Callable[..., Evidence], tmp_path: Path
) -> None:
    runs, _ = kept
    source = provenance("x", device="cpu", runs=2, trained=2, trained_s=1.0)
    for name in ("one", "other"):
        record(tmp_path / name, evidence(two_random=evidence().two_random), source, runs)
    for file in ("evidence.json.gz", "runs.json.gz", "directions.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


def test_a_bench_that_was_not_recorded_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(recordings, "RECORDED_DIR", tmp_path)
    with pytest.raises(ll.LabError, match="bench"):
        recorded("sql")


@pytest.mark.parametrize("bench", recorded_names())
def test_what_is_kept_in_the_repository_can_be_read_and_says_where_it_comes_from(bench: str) -> None:
    kept = recorded(bench)
    assert kept.source.runs == len(kept.runs)
    assert kept.source.command == f"python -m lora_lab reproduce --bench {bench}"  # the bench's own seeds and steps
    assert all(run.run_id == run.spec.run_id for run in kept.runs)
    assert len(findings(kept.evidence)) >= 4
    configs = [json.loads(path.read_text()) for path in kept.folder.glob("adapters/*/adapter_config.json")]
    assert not any(Path(config["base_model_name_or_path"]).is_absolute() for config in configs)


def test_recorded_results_take_no_more_than_their_room() -> None:
    assert sum(path.stat().st_size for path in RECORDED_DIR.rglob("*") if path.is_file()) < 25_000_000
