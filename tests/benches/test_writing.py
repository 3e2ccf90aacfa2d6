"""Completions: what the loss counts, what is written, and how it is scored; on a tiny Llama that nobody has trained."""

from pathlib import Path

import pytest
import torch
from sacrebleu import corpus_bleu
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import lora_lab as ll
from lora_lab.benches import Split
from lora_lab.benches.examples import Completion, Table
from lora_lab.benches.text import completions, language_model
from lora_lab.benches.writing import IGNORED, Writing, generate, prompt_ids, score_answers, tokenizer_of
from lora_lab.methods import attach_method
from lora_lab.training import evaluate

WORDS = ["<pad>", "<eos>", "<unk>", *"one two three four five six seven eight nine ten".split()]
EXAMPLES = [
    Completion("one two", "three"),
    Completion("four", "five six seven eight"),
    Completion("nine ten one two three", "four five"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers, 32 wide, and a tokenizer of ten words."""
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), eos_token_id=1, pad_token_id=0, **size)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def split(folder: Path) -> Split:
    return completions(folder, EXAMPLES, Writing("bleu", folder=folder, max_new_tokens=5))


def ids(words: str) -> list[int]:
    return [WORDS.index(word) for word in words.split()]


# What a row is


def test_a_row_is_prompt_completion_and_end_and_only_the_latter_two_are_labels(split: Split) -> None:
    for row, (example, length) in enumerate(zip(EXAMPLES, (4, 6, 8), strict=True)):
        tokens = [*ids(example.prompt), *ids(example.completion), WORDS.index("<eos>")]
        assert split.columns["attention_mask"][row].tolist() == [1] * length + [0] * (8 - length)
        assert split.columns["input_ids"][row, :length].tolist() == tokens
        silent = len(ids(example.prompt))
        assert split.columns["labels"][row].tolist() == [IGNORED] * silent + tokens[silent:] + [IGNORED] * (8 - length)
        assert prompt_ids(split, row) == ids(example.prompt)


def test_what_is_too_long_loses_the_beginning_of_its_prompt(folder: Path) -> None:
    cut = completions(folder, EXAMPLES, Writing("bleu", folder=folder), max_tokens=5)
    assert cut.columns["input_ids"][2].tolist() == [*ids("two three four five"), 1]
    assert prompt_ids(cut, 2) == ids("two three")
    assert cut.columns["input_ids"].shape[1] == 5


def test_plain_text_is_cut_into_rows_and_every_token_comes_once(folder: Path) -> None:
    text = "one two three four five six seven eight nine"
    rows = completions(folder, [Completion("", text)], Writing("loss", folder=folder), max_tokens=4)
    masked = [row[mask == 1].tolist() for row, mask in zip(rows.columns["input_ids"], rows.columns["attention_mask"], strict=True)]
    assert [len(row) for row in masked] == [4, 4, 2]
    assert [token for row in masked for token in row] == [*ids(text), 1]


# The loss


def test_the_loss_is_the_mean_over_the_tokens_of_all_completions(folder: Path, split: Split) -> None:
    model = language_model(folder).eval()
    nats: list[float] = []
    for example in EXAMPLES:  # one at a time, without padding, by the definition
        prompt, answer = ids(example.prompt), [*ids(example.completion), 1]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
        nats += [-float(logits[len(prompt) - 1 + i].log_softmax(0)[token]) for i, token in enumerate(answer)]
    assert evaluate(model, split, score=False).loss == pytest.approx(sum(nats) / len(nats), rel=1e-5)


def test_what_stands_in_the_prompt_is_no_part_of_the_loss(folder: Path, split: Split) -> None:
    batch = split.batch(torch.arange(3))
    logits = language_model(folder)(**batch).logits
    task = split.task
    total, count = task.loss(logits, batch)
    assert count == sum(len(ids(e.completion)) + 1 for e in EXAMPLES)
    other = logits.clone()
    other[0, 0] += torch.randn(len(WORDS), generator=torch.Generator().manual_seed(0))  # predicts the prompt's second word
    assert torch.equal(task.loss(other, batch)[0], total)
    other[0, 1] += torch.randn(len(WORDS), generator=torch.Generator().manual_seed(0))  # predicts the completion's first
    assert not torch.equal(task.loss(other, batch)[0], total)


@pytest.mark.parametrize("method", ["prefix", "preembed", "lora+preembed"])
def test_virtual_tokens_are_left_out_of_the_loss(folder: Path, split: Split, method: str) -> None:
    model = attach_method(
        language_model(folder), ll.MethodSpec(method=method, r=3, num_virtual_tokens=3), seed=0, task_type="CAUSAL_LM"
    )
    batch = split.batch(torch.arange(3))
    with torch.no_grad():
        output = model.eval()(**batch)
    total, count = split.task.loss(output.logits, batch)
    assert float(total) / count == pytest.approx(float(output.loss), rel=1e-5)


# What is written


def greedy(model: torch.nn.Module, prompt: list[int], steps: int) -> list[int]:
    """One token after the other, the whole text read anew each time."""
    text = list(prompt)
    for _ in range(steps):
        with torch.no_grad():
            text.append(int(model(input_ids=torch.tensor([text])).logits[0, -1].argmax()))
        if text[-1] == 1:
            break
    return text[len(prompt) :]


@pytest.mark.parametrize("method", [None, "lora", "prefix", "preembed", "lora+prefix", "lora+preembed"])
def test_written_in_a_padded_batch_is_written_alone(folder: Path, split: Split, method: str | None) -> None:
    model = language_model(folder)
    if method:
        model = attach_method(model, ll.MethodSpec(method=method, r=3), seed=0, task_type="CAUSAL_LM")
    tokenizer, written = tokenizer_of(folder), split.task.answers(model.eval(), split)
    for row, found in enumerate(written):
        prompt = prompt_ids(split, row)
        alone = generate(model, [prompt], tokenizer, 5)[0]
        assert found == tokenizer.decode(alone, skip_special_tokens=True)
        if method in (None, "lora"):
            assert [t for t in alone if t > 1] == [t for t in greedy(model, prompt, 5) if t > 1]


def test_answers_come_in_the_order_of_the_rows(folder: Path, split: Split) -> None:
    model = language_model(folder).eval()
    answers = split.task.answers(model, split)
    turned = split.take(torch.tensor([2, 0, 1]))
    assert split.task.answers(model, turned) == [answers[2], answers[0], answers[1]]
    assert turned.examples == (EXAMPLES[2], EXAMPLES[0], EXAMPLES[1])


# How it is scored


def test_bleu_is_sacrebleu_on_all_references() -> None:
    examples = [
        Completion("", " a cheap pub by the river", (" a cheap pub by the river", " by the river there is a cheap pub")),
        Completion("", " an old hotel near the sea", (" an old hotel near the sea",)),
    ]
    answers = [" by the river there is a cheap bar", "an old hotel near the sea"]
    wanted = corpus_bleu(
        [a.strip() for a in answers], [[e.references[0].strip() for e in examples], [examples[0].references[1].strip(), None]]
    )
    assert score_answers("bleu", answers, examples) == pytest.approx(wanted.score)
    exact = [e.references[-1] for e in examples]
    assert score_answers("bleu", exact, examples) == pytest.approx(100)
    assert score_answers("bleu", ["nothing of it at all here"] * 2, examples) < 5


def test_rouge_l_is_the_longest_common_subsequence() -> None:
    example = [Completion("", "the cat sat on the mat")]
    assert score_answers("rouge_l", ["the cat sat on the mat"], example) == pytest.approx(1)
    recall, precision = 3 / 6, 3 / 4  # "the … on … mat" in "the dog on mat"
    assert score_answers("rouge_l", ["the dog on mat"], example) == pytest.approx(2 * recall * precision / (recall + precision))


def test_execution_accuracy_runs_what_was_written() -> None:
    table = Table("boats", ("boat", "mast"), ("TEXT", "INTEGER"), (("Ada", 3), ("Bo", 5), ("Cy", 5)))
    example = Completion("", " SELECT boat FROM boats WHERE mast > 4", table=table)
    right, other, broken = " SELECT boat FROM boats WHERE mast = 5\nand more", " SELECT mast FROM boats", " SELECT FROM"
    assert score_answers("execution_accuracy", [right, other, broken], [example] * 3) == pytest.approx(1 / 3)
