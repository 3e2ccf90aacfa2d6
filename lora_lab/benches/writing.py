"""The task of writing: a completion after a prompt, scored by what is written."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.generation import BaseStreamer

from lora_lab.benches.echo import nearest_answers
from lora_lab.benches.examples import Completion
from lora_lab.benches.quiet import quiet_transformers
from lora_lab.benches.task import Batch, Task
from lora_lab.errors import DataError

if TYPE_CHECKING:
    from lora_lab.benches.bench import Split

_TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model")
IGNORED = -100  # a label that no loss counts, as transformers has it


@cache
def tokenizer_of(folder: Path) -> PreTrainedTokenizerBase:
    """The folder's tokenizer; it pads with its end of text where it has no padding of its own.

    Raises:
        DataError: there is none; transformers would make one up, to which every word is unknown.
    """
    if not any(found for pattern in _TOKENIZER_FILES for found in folder.glob(pattern)):
        raise DataError(f"The base must be a folder with a tokenizer. Got {str(folder)!r}, which has none.")
    try:
        with quiet_transformers():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    except (ValueError, OSError, KeyError) as err:
        reason = str(err).splitlines()[0]
        raise DataError(f"The tokenizer in {str(folder)!r} must be one that transformers can read. It says: {reason}") from err
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@dataclass(frozen=True)
class Writing(Task):
    """Next-token prediction on the completion alone, in nats a token; the metric reads greedily written answers.

    Attributes:
        folder: where the tokenizer is.
        max_new_tokens: an answer is cut there.
        scored_rows: the metric reads the first so many rows of a split: writing is slow.
    """

    folder: Path = Path()
    max_new_tokens: int = 64
    scored_rows: int = 64
    rows_a_batch: int = 16
    is_slow: ClassVar[bool] = True

    def item_losses(self, logits: Float[Tensor, "..."], batch: Batch) -> tuple[Float[Tensor, " items"], Int[Tensor, " items"]]:
        """Logits of virtual tokens before the text, where a method puts them there, are left out."""
        labels = batch["labels"].to(logits.device)[:, 1:]
        of_text = logits[:, -batch["labels"].shape[1] : -1]
        counted = labels != IGNORED
        losses = nn.functional.cross_entropy(of_text[counted].float(), labels[counted], reduction="none")
        return losses, counted.nonzero()[:, 0]

    def predictions(self, logits: Float[Tensor, "..."]) -> Tensor | None:
        return None

    def score(self, model: nn.Module, split: "Split", predictions: Tensor | None) -> float | None:
        if self.metric == "loss":
            return None
        some = self._scored(split)
        return score_answers(self.metric, self.answers(model, some), some.examples)

    def echo(self, train: "Split", held_out: "Split") -> float | None:
        """On the rows that a model is scored on; None for plain text, which has no prompts."""
        if self.metric == "loss":
            return None
        some = self._scored(held_out)
        return score_answers(self.metric, nearest_answers(train.examples, some.examples), some.examples)

    def _scored(self, split: "Split") -> "Split":
        return split.take(torch.arange(min(self.scored_rows, len(split))))

    @torch.inference_mode()
    def answers(self, model: nn.Module, split: "Split") -> list[str]:
        """What the model writes after each prompt, greedily; in the split's order."""
        tokenizer = tokenizer_of(self.folder)
        written: list[str] = [""] * len(split)
        prompts = sorted(((row, prompt_ids(split, row)) for row in range(len(split))), key=lambda pair: len(pair[1]))
        for batch in _batches(prompts, 2 * self.rows_a_batch, alike=_ignores_positions(model)):
            answers = generate(model, [prompt for _, prompt in batch], tokenizer, self.max_new_tokens)
            for (row, _), ids in zip(batch, answers, strict=True):
                written[row] = tokenizer.decode(ids, skip_special_tokens=True)
        return written


def _batches(prompts: Sequence[tuple[int, list[int]]], size: int, *, alike: bool) -> Iterator[Sequence[tuple[int, list[int]]]]:
    """The prompts in their order, some at once; only those of one length where they must be alike."""
    groups = [list(group) for _, group in groupby(prompts, key=lambda pair: len(pair[1]))] if alike else [list(prompts)]
    for group in groups:
        yield from (group[i : i + size] for i in range(0, len(group), size))


def _ignores_positions(model: nn.Module) -> bool:
    """Whether padding would come between a prompt and virtual tokens before it: PEFT's embedded ones take no positions."""
    config: Any = getattr(model, "active_peft_config", None)
    return bool(getattr(config, "is_prompt_learning", False)) and "PREFIX" not in str(config.peft_type)


def prompt_ids(split: "Split", row: int) -> list[int]:
    """The tokens of a row before its completion."""
    ids, labels, mask = (split.columns[name][row] for name in ("input_ids", "labels", "attention_mask"))
    found: list[int] = ids[(labels == IGNORED) & (mask == 1)].tolist()
    return found


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    max_new_tokens: int,
    *,
    streamer: BaseStreamer | None = None,
) -> list[list[int]]:
    """Greedy answers to prompts of token ids, padded on the left for it; without the prompts.

    A streamer is handed the prompts, and then every token as it is written.
    """
    device, longest = next(model.parameters()).device, max(len(prompt) for prompt in prompts)
    pad: Any = tokenizer.pad_token_id
    ids = torch.tensor([[*[pad] * (longest - len(p)), *p] for p in prompts], device=device)
    mask = torch.tensor([[*[0] * (longest - len(p)), *[1] * len(p)] for p in prompts], device=device)
    ends = {"pad_token_id": pad, "eos_token_id": tokenizer.eos_token_id}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Position ids are not supported")  # see `_ignores_positions`
        written: Any = model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False, streamer=streamer, **ends
        )
    found: list[list[int]] = written[:, longest:].tolist()
    return found


def score_answers(metric: str, answers: Sequence[str], examples: Sequence[Completion]) -> float:
    """The metric of written answers: BLEU in 0..100 over the whole, ROUGE-L or execution accuracy as a mean."""
    return _SCORERS[metric](answers, examples)


def _bleu(answers: Sequence[str], examples: Sequence[Completion]) -> float:
    """Source: Papineni et al. 2002, as sacrebleu has it (tokenized 13a, all references of an example)."""
    from sacrebleu import corpus_bleu  # noqa: PLC0415 (only where it is asked for)

    references = [[text.strip() for text in example.references or (example.completion,)] for example in examples]
    most = max(map(len, references))
    columns = [[texts[i] if i < len(texts) else None for texts in references] for i in range(most)]
    return float(corpus_bleu([answer.strip() for answer in answers], columns).score)  # type: ignore[arg-type]


def _rouge_l(answers: Sequence[str], examples: Sequence[Completion]) -> float:
    """Mean F of the longest common subsequence, the best reference of each example. Source: Lin 2004."""
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    pairs = zip(answers, examples, strict=True)
    found = [scorer.score_multi([*(e.references or (e.completion,))], answer)["rougeL"].fmeasure for answer, e in pairs]
    return float(sum(found) / len(found))


def _execution(answers: Sequence[str], examples: Sequence[Completion]) -> float:
    from lora_lab.benches.sqlite import execution_accuracy  # noqa: PLC0415

    found: float = execution_accuracy(answers, examples)
    return found


_SCORERS: dict[str, Callable[[Sequence[str], Sequence[Completion]], float]] = {
    "bleu": _bleu,
    "rouge_l": _rouge_l,
    "execution_accuracy": _execution,
}
