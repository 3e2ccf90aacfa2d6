"""What every ring of tests shares."""

import copy
import os
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    """One thread: small models are faster on it, and every machine adds up in the same order."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> "object":
    """One real run on the digits (r = 4, 40 steps), trained once for every test that looks at a trained adapter."""
    import lora_lab as ll

    return ll.train("digits", ll.LoraSpec(r=4), steps=40, runs=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def digits_base() -> "object":
    """A fresh model of the digits base; tests may do to it what they like."""
    import lora_lab as ll

    return copy.deepcopy(ll.find_bench("digits").load_model())
