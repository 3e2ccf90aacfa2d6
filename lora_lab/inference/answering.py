"""One prompt, answered by several side by side: written token by token, or at once where an answer is a label."""

import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.generation import BaseStreamer

from lora_lab.benches.writing import Writing, generate, tokenizer_of
from lora_lab.errors import SpecError, out_of_range
from lora_lab.inference.live_models import Answerer

_HALF_A_CHARACTER = "\ufffd"


@dataclass(frozen=True, slots=True)
class Said:
    """What one has written so far.

    Attributes:
        tokens: how many, the end of the text counted.
        took_s: the time that this one computed, reading the prompt included; not what it waited for the others.
        is_done: whether it will write no more.
        is_cut: whether it was done before its text was.
    """

    who: str
    text: str
    tokens: int
    took_s: float
    is_done: bool = False
    is_cut: bool = False

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens a second; None before there is one."""
        return self.tokens / self.took_s if self.tokens and self.took_s else None


@dataclass(frozen=True, slots=True)
class Judged:
    """What one takes the answer to be: a share of 1 for every label, or a number."""

    who: str
    shares: tuple[float, ...]
    number: float | None
    took_s: float

    @property
    def label(self) -> int | None:
        """The likeliest label; None where the answer is a number."""
        return max(range(len(self.shares)), key=self.shares.__getitem__) if self.shares else None


def stream_answers(
    answerers: Sequence[Answerer], prompt_ids: Sequence[int], task: Writing, *, max_new_tokens: int
) -> Generator[Said, None, None]:
    """What each writes after the prompt, greedily, one token each in turn: what `Writing.answers` gives, as it comes.

    Each answer is one call of `generate` with a cache of its own. Closing the generator stops them all.

    Args:
        answerers: who is asked.
        prompt_ids: the prompt as token ids, at least one.
        task: the bench's, for its tokenizer.
        max_new_tokens: where an answer is cut.

    Raises:
        SpecError: `max_new_tokens` is below 1, or the prompt is empty.
    """
    if max_new_tokens < 1:
        raise SpecError(out_of_range("max_new_tokens", "stream_answers", "at least 1", max_new_tokens))
    if not prompt_ids:
        raise SpecError(out_of_range("prompt_ids", "stream_answers", "at least one token", list(prompt_ids)))
    return _in_turns([_Writer(answerer, prompt_ids, task, max_new_tokens) for answerer in answerers])


def _in_turns(writers: Sequence["_Writer"]) -> Generator[Said, None, None]:
    try:
        while writing := [writer for writer in writers if not writer.is_done]:
            for writer in writing:
                writer.write_one()
                yield writer.said()
    finally:
        for writer in writers:
            writer.close()


class _Stopped(Exception):
    """Thrown into `generate` to end it."""


class _Writer(BaseStreamer):  # type: ignore[misc]
    """One call of `generate` in a thread of its own, which computes only while `write_one` waits for it."""

    def __init__(self, answerer: Answerer, prompt_ids: Sequence[int], task: Writing, max_new_tokens: int) -> None:
        self._answerer, self._prompt, self._most = answerer, list(prompt_ids), max_new_tokens
        self._tokenizer = tokenizer_of(task.folder)
        self._ids: list[int] = []
        self._took_s = 0.0
        self._go, self._came = threading.Semaphore(0), threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._has_prompt = self._is_closed = self.is_done = False

    def write_one(self) -> None:
        """Let it write one token more, or come to its end; what went wrong is raised here."""
        began_s = time.perf_counter()
        with self._answerer.ready() as model:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, args=(model,), daemon=True)
                self._thread.start()
            else:
                self._go.release()
            self._came.acquire()
        self._took_s += time.perf_counter() - began_s
        if self._error is not None:
            raise self._error

    def said(self) -> Said:
        """What it has written, half a character at its end left out while it may still become a whole one."""
        text: str = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        text = text if self.is_done else text.rstrip(_HALF_A_CHARACTER)
        is_cut = self.is_done and self._ids[-1:] != [self._tokenizer.eos_token_id]
        return Said(self._answerer.who, text, len(self._ids), self._took_s, self.is_done, is_cut)

    def close(self) -> None:
        """Stop it, wherever it is."""
        self._is_closed = True
        if self._thread is not None:
            self._go.release()
            self._thread.join()

    # In the thread.

    def _write(self, model: nn.Module) -> None:
        try:
            generate(model, [self._prompt], self._tokenizer, self._most, streamer=self)
        except _Stopped:
            pass
        except BaseException as err:
            self._error = err
        finally:
            self.is_done = True
            self._came.release()

    def put(self, value: Tensor) -> None:
        """Called by `generate`: with the prompt first, then with each token."""
        if not self._has_prompt:
            self._has_prompt = True
            return
        self._ids += value.flatten().tolist()
        self._came.release()
        self._go.acquire()
        if self._is_closed:
            raise _Stopped

    def end(self) -> None:
        """Called by `generate` after its last token."""


def latest(stream: Generator[Said, None, None], *, every_s: float = 0.2) -> Generator[dict[str, Said], None, None]:
    """The newest of each, at most so often, and once more at the end. Closing it closes the stream."""
    said: dict[str, Said] = {}
    shown_s = 0.0
    with closing(stream):
        for one in stream:
            said[one.who] = one
            if time.monotonic() - shown_s >= every_s:
                yield dict(said)
                shown_s = time.monotonic()
        yield dict(said)


@torch.no_grad()
def judge(answerers: Sequence[Answerer], inputs: Mapping[str, Tensor], *, labels: bool) -> list[Judged]:
    """What each takes a batch of one for: softmax over the labels, or the number itself where there are none."""
    return [_judged(answerer, inputs, labels) for answerer in answerers]


def _judged(answerer: Answerer, inputs: Mapping[str, Tensor], labels: bool) -> Judged:
    began_s = time.perf_counter()
    with answerer.ready() as model:
        logits = model(**inputs).logits[0].float()
    took_s = time.perf_counter() - began_s
    if labels:
        return Judged(answerer.who, tuple(logits.softmax(0).tolist()), None, took_s)
    return Judged(answerer.who, (), float(logits.squeeze()), took_s)
