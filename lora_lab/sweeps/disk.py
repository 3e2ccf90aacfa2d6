"""What a run will take on disk, before it is there."""

from dataclasses import dataclass, replace

from lora_lab.budget.counts import head_params, rank_of, targeted
from lora_lab.budget.files import adapter_file_bytes
from lora_lab.geometry import Geometry
from lora_lab.roles import stack_of
from lora_lab.specs import LORA_KIN, MOVING_INITS, MethodSpec, RunSpec, StepSpec
from lora_lab.training.loop import SPECTRA_A_RUN

_FP32 = StepSpec(dtype="fp32", adapter_dtype="fp32")  # as adapters and heads are trained and saved
_HEAD_BYTES_A_PARAM = 4
# Measured on runs of the digits; a test holds them against runs of today.
_BYTES_A_STEP = 270
_BYTES_A_SINGULAR_VALUE, _BYTES_A_ZERO = 21, 5  # ΔW is zero at step 0
_BYTES_A_MATRIX = 8  # of a spectrum, besides the name
_BYTES_A_SPECTRUM = 60
_BYTES_AN_EVALUATION = 150
_BYTES_OF_RECORDS = 3_000  # spec, metrics, the adapter's config, the first and the last line of the log


@dataclass(frozen=True, slots=True)
class RunBytes:
    """A run's adapter, which every save replaces (while one is written both are there), its snapshots of ΔW, its log of events."""

    adapter: int
    snapshots: int
    log: int


def run_bytes(geometry: Geometry, spec: RunSpec, head_modules: tuple[str, ...]) -> RunBytes:
    """What the run will leave behind.

    Args:
        geometry: of the base.
        spec: a planned run.
        head_modules: the modules that are trained in full beside the adapter.
    """
    tuning = spec.tuning
    if tuning.init_lora_weights in MOVING_INITS:  # saved for the base as it was, by factors twice as wide
        tuning = replace(tuning, r=2 * tuning.r, rank_pattern=tuple((name, 2 * r) for name, r in tuning.rank_pattern))
    head_bytes = _HEAD_BYTES_A_PARAM * head_params(geometry, head_modules)
    adapter_bytes = adapter_file_bytes(geometry, tuning, _FP32) + head_bytes
    snapshots_bytes = len(spec.snapshot_steps) * _snapshot_bytes(geometry, tuning)
    return RunBytes(adapter_bytes, snapshots_bytes, _log_bytes(geometry, spec))


def _snapshot_bytes(geometry: Geometry, tuning: MethodSpec) -> int:
    """Both factors of every matrix, of VeRA and AdaLoRA too, and no bias or head."""
    lora = replace(tuning.parts()[0], method="lora", bias="none")
    return adapter_file_bytes(geometry, lora, _FP32)


def evaluations(spec: RunSpec) -> int:
    """How often the run is scored on the validation split while and when it has trained."""
    return -(-spec.steps // spec.eval_every_steps)


def spectra(spec: RunSpec) -> int:
    """How often ΔW's singular values are taken, at step 0 too."""
    evaluated = {*range(spec.eval_every_steps, spec.steps + 1, spec.eval_every_steps), spec.steps} - {0}
    if _is_dense(spec.tuning):
        return 1 + len(evaluated)
    every = max(1, spec.steps // SPECTRA_A_RUN)
    return 1 + len(evaluated | set(range(every, spec.steps + 1, every)))


def _is_dense(tuning: MethodSpec) -> bool:
    """Whether ΔW comes without factors: a spectrum is the price of a whole matrix then, and taken at evaluations alone."""
    return tuning.method in ("full", "partial", "dora", "ia3")


def _log_bytes(geometry: Geometry, spec: RunSpec) -> int:
    steps = _BYTES_A_STEP * spec.steps + _BYTES_AN_EVALUATION * (4 + evaluations(spec))
    looks = _spectrum_bytes(geometry, spec.tuning, _BYTES_A_ZERO)
    looks += (spectra(spec) - 1) * _spectrum_bytes(geometry, spec.tuning, _BYTES_A_SINGULAR_VALUE)
    return _BYTES_OF_RECORDS + steps + looks


def _spectrum_bytes(geometry: Geometry, tuning: MethodSpec, each: int) -> int:
    values = {name: n for part in tuning.parts() for name, n in _singular_values(geometry, part).items()}
    return _BYTES_A_SPECTRUM + sum(len(name) + _BYTES_A_MATRIX + each * n for name, n in values.items())


def _singular_values(geometry: Geometry, tuning: MethodSpec) -> dict[str, int]:
    """How many of each matrix that changes."""
    if tuning.method == "full":
        return {m.name: m.max_r for m in geometry.matrices if m.role != "head"}
    if tuning.method == "partial":
        stacks = geometry.top_layers(tuning.r, tuning.layers_to_transform)
        return {m.name: m.max_r for m in geometry.matrices if stack_of(m.name) in stacks}
    moved = 2 if tuning.init_lora_weights in MOVING_INITS else 1
    factors = tuning.method in LORA_KIN and not _is_dense(tuning)
    return {m.name: min(m.max_r, moved * rank_of(tuning, m.name)) if factors else m.max_r for m in targeted(geometry, tuning)}
