"""What every ring of tests shares."""

import copy
import fcntl
import os
import shlex
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave the cores to the other processes
REPOSITORY = Path(__file__).parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first, so that of several processes (`-n`) none waits for the one that has it."""
    items.sort(key=lambda item: item.path.name != "test_support.py")


def _lock(name: str) -> Path:
    return Path(tempfile.gettempdir()) / f"lora-lab-tests-{os.getuid()}-{name}.lock"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """A test marked `timed` waits for those of other processes to end, and they wait for it: no other begins while it waits."""
    with _lock("gate").open("w") as gate, _lock("tests").open("w") as tests:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(tests, fcntl.LOCK_EX if item.get_closest_marker("timed") else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        return (yield)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def readme_commands() -> list[list[str]]:
    """Every `python -m lora_lab` line of the README, as arguments; tests run them as they stand there."""
    lines = (REPOSITORY / "README.md").read_text().splitlines()
    return [shlex.split(line)[3:] for line in lines if line.startswith("python -m lora_lab ")]


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


@pytest.fixture(scope="session")
def left_behind() -> Callable[[Path], list[str]]:
    """What a store's folder has beside runs, its index and the file that claims are tried under: drafts, claims, remains."""

    from lora_lab.sweeps import RunStore

    def left_behind(root: Path) -> list[str]:
        runs = {run.run_id for run in RunStore(root).runs()}
        names = {path.name for path in root.iterdir() if not path.name.startswith("index.sqlite")}
        return sorted(names - runs - {".claims"})

    return left_behind


@pytest.fixture
def digits_base() -> "object":
    """A fresh model of the digits base; tests may do to it what they like."""
    import lora_lab as ll

    return copy.deepcopy(ll.find_bench("digits").build())


def save_tokenizer(folder: Path, words: list[str], **special: str) -> None:
    """A word is a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", **special).save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with a word-level tokenizer, in a folder as a user would have one."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("base")
    words = ["[PAD]", "[UNK]", "good", "bad", "is", *(f"word{i}" for i in range(7))]
    save_tokenizer(folder, words, pad_token="[PAD]")
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(words), **size)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with a word-level tokenizer that has an end of text and no padding, in a folder as a user would have one."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("writer")
    words = ["[END]", "[UNK]", "good", "bad", "is", "it", "say", *(f"word{i}" for i in range(9))]
    save_tokenizer(folder, words, eos_token="[END]")
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
    tokens = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **size, **tokens)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(make_writer: Callable[..., object]) -> object:
    """A tiny Llama with a word-level tokenizer in a folder, and prompts with completions in a file: `base` and `data`."""
    return make_writer(layers=2)


@pytest.fixture(scope="session")
def make_writer(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., object]:
    """`tiny_llama` of so many layers: the more, the slower it writes."""
    import json
    from types import SimpleNamespace

    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    import lora_lab as ll

    def make(*, layers: int) -> SimpleNamespace:
        folder = tmp_path_factory.mktemp("writer")
        words = ["[PAD]", "[UNK]", "[END]", "name", "says", *(f"word{i}" for i in range(25))]
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[END]"}
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
        size = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
        tokens = {"vocab_size": len(words), "max_position_embeddings": 128, "eos_token_id": 2, "bos_token_id": 2, "pad_token_id": 0}
        config = LlamaConfig(attention_bias=True, num_hidden_layers=layers, **size, **tokens)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            LlamaForCausalLM(config).save_pretrained(folder)
        told = [" ".join(f"word{(i * (k + 2) + k) % 25}" for k in range(7)) for i in range(40)]
        rows = [{"prompt": f"name word{i % 25} says", "completion": f" {text}"} for i, text in enumerate(told)]
        file = folder / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return SimpleNamespace(base=str(folder), data=ll.DataSpec(path=str(file)))

    return make
