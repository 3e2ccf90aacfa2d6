"""Answers side by side: what is streamed is what `generate` writes, and one's column is never another's."""

import json
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import lora_lab as ll
from lora_lab.benches import find_bench
from lora_lab.benches.writing import Writing, generate, tokenizer_of
from lora_lab.errors import AdapterError, DataError, SpecError
from lora_lab.inference import (
    BASE,
    Answerer,
    LiveModels,
    Said,
    answer_kind,
    inputs_of,
    judge,
    latest,
    open_run,
    question_of,
    stream_answers,
    written_prompt,
)

METHODS = ("lora", "dora", "ia3", "prefix", "preembed", "lora+prefix", "ln_tuning", "bitfit", "adapter", "partial", "full", "qlora")
SHARE = ("lora", "dora")  # of one PEFT method, the first's
MOST = 8


def trained(writer: SimpleNamespace, method: str, **settings: Any) -> ll.Run:
    """Three steps, far enough that the answer is another than the base's."""
    spec = ll.MethodSpec(method=method, r=2)
    rate = {"ia3": 1.0, "ln_tuning": 0.5, "bitfit": 0.5, "prefix": 1.0, "preembed": 1.0}.get(method, 0.03)
    settings = {"steps": 3, "batch_size": 4, "warmup_steps": 0, "learning_rate": rate, **settings}
    return ll.train(writer.base, spec, data=writer.data, runs=writer.runs, **settings)


@pytest.fixture(scope="module")
def runs(tiny_llama: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ll.Run]:
    writer = SimpleNamespace(**vars(tiny_llama), runs=tmp_path_factory.mktemp("runs"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writing, "score", lambda *_: None)  # 64 tokens a row, which nobody reads here
        return {method: trained(writer, method) for method in METHODS}


def pairs(runs: Sequence[ll.Run]) -> list[tuple[ll.RunSpec, Path]]:
    return [(run.spec, run.adapter_dir) for run in runs]


def asked(models: LiveModels, runs: Sequence[ll.Run], row: int = 0, most: int = MOST) -> dict[str, Said]:
    """The last word of each."""
    bench = find_bench(runs[0].spec.bench, runs[0].spec.data)
    question = question_of(bench, row)
    ids = written_prompt(bench, question.text, question)
    answerers = list(models.answerers(bench, pairs(runs)))
    return {said.who: said for said in stream_answers(answerers, ids, bench.splits().test.task, max_new_tokens=most)}


def by_generate(model: nn.Module, run: ll.Run, row: int = 0, most: int = MOST) -> str:
    bench = find_bench(run.spec.bench, run.spec.data)
    tokenizer = tokenizer_of(bench.base_folder())
    prompt = tokenizer(bench.splits().test.examples[row].prompt, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        return tokenizer.decode(generate(model, [prompt], tokenizer, most)[0], skip_special_tokens=True)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_streamed_is_what_generate_writes(runs: dict[str, ll.Run], method: str) -> None:
    run = runs[method]
    bench = find_bench(run.spec.bench, run.spec.data)
    said = asked(LiveModels(), [run])
    assert said[run.run_id].text == by_generate(open_run(run.spec, run.adapter_dir), run)
    base = bench.build() if run.spec.quant == "none" else open_run(runs["qlora"].spec, runs["qlora"].adapter_dir).unload()
    assert said[BASE].text == by_generate(base, run)
    assert said[run.run_id].text != said[BASE].text
    assert all(one.is_done and 0 < one.tokens <= MOST for one in said.values())


def test_side_by_side_each_writes_what_it_writes_alone(runs: dict[str, ll.Run]) -> None:
    together = [runs[method] for method in ("lora", "dora", "ia3", "prefix", "full")]
    said = asked(LiveModels(), together)
    for run in together:
        assert said[run.run_id].text == by_generate(open_run(run.spec, run.adapter_dir), run)
    assert said[BASE].text == by_generate(find_bench(together[0].spec.bench, together[0].spec.data).build(), together[0])
    assert len({one.text for one in said.values()}) > 3


def test_an_answer_is_that_of_the_bench_s_own_metric(runs: dict[str, ll.Run]) -> None:
    run = runs["lora"]
    split = find_bench(run.spec.bench, run.spec.data).splits().test.take(torch.tensor([1]))
    task = split.task
    (answer,) = task.answers(open_run(run.spec, run.adapter_dir), split)
    assert asked(LiveModels(), [run], row=1, most=task.max_new_tokens)[run.run_id].text == answer


def test_adapters_of_one_peft_method_share_the_base(runs: dict[str, ll.Run]) -> None:
    bench = find_bench(runs["lora"].spec.bench, runs["lora"].spec.data)
    chosen = [runs[method] for method in ("lora", "dora", "ia3", "full")]
    with_base, *others = [answerer._model for answerer in LiveModels().answerers(bench, pairs(chosen))]
    assert [model is with_base for model in others] == [run.spec.tuning.method in SHARE for run in chosen]


def test_models_are_kept_and_few(runs: dict[str, ll.Run], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def counted(spec: ll.RunSpec, folder: Path) -> nn.Module:
        opened.append(spec.tuning.method)
        return open_run(spec, folder)

    monkeypatch.setattr("lora_lab.inference.live_models.open_run", counted)
    models, bench = LiveModels(), find_bench(runs["full"].spec.bench, runs["full"].spec.data)
    own = ("prefix", "bitfit", "partial")
    for _ in range(2):
        list(models.answerers(bench, pairs([runs[method] for method in own])))
    assert opened == list(own)
    list(models.answerers(bench, pairs([runs["full"]])))
    list(models.answerers(bench, pairs([runs["partial"], runs["prefix"]])))
    assert opened == [*own, "full", "prefix"]  # the one asked longest ago had gone


def test_columns_grow_together(runs: dict[str, ll.Run]) -> None:
    bench = find_bench(runs["lora"].spec.bench, runs["lora"].spec.data)
    question = question_of(bench, 0)
    answerers = list(LiveModels().answerers(bench, pairs([runs["lora"], runs["dora"]])))
    task = bench.splits().test.task
    counts = dict.fromkeys((one.who for one in answerers), 0)
    texts: dict[str, list[str]] = {who: [] for who in counts}
    for said in stream_answers(answerers, written_prompt(bench, question.text), task, max_new_tokens=MOST):
        counts[said.who] = said.tokens
        texts[said.who].append(said.text)
        assert said.is_done or max(counts.values()) - said.tokens <= 1
    for written in texts.values():
        assert len(written) > 2
        assert all(later.startswith(text) for text, later in pairwise(written))


def test_closing_stops_every_writer_and_the_next_question_is_answered(runs: dict[str, ll.Run]) -> None:
    bench, models = find_bench(runs["lora"].spec.bench, runs["lora"].spec.data), LiveModels()
    task, ids = bench.splits().test.task, written_prompt(bench, question_of(bench, 0).text)
    before = threading.active_count()
    stream = stream_answers(list(models.answerers(bench, pairs([runs["lora"], runs["prefix"]]))), ids, task, max_new_tokens=50)
    next(stream)
    next(stream)
    assert threading.active_count() == before + 2
    stream.close()
    assert threading.active_count() == before
    assert asked(models, [runs["prefix"]])[runs["prefix"].run_id].text == by_generate(
        open_run(runs["prefix"].spec, runs["prefix"].adapter_dir), runs["prefix"]
    )


def test_what_goes_wrong_in_a_writer_is_raised_where_it_is_read(tiny_llama: SimpleNamespace) -> None:
    class Broken(nn.Linear):
        def generate(self, **_: Any) -> None:
            raise RuntimeError("no room")

    bench = find_bench(tiny_llama.base, tiny_llama.data)
    broken = Answerer("x", Broken(1, 1), threading.Lock(), 1)
    with pytest.raises(RuntimeError, match="no room"):
        list(stream_answers([broken], [3], bench.splits().test.task, max_new_tokens=2))


def test_the_answer_s_own_rules_of_generation_hold(tiny_llama: SimpleNamespace, tmp_path: Path) -> None:
    """A repetition penalty in generation_config.json, as several instruct models have."""
    shutil.copytree(tiny_llama.base, tmp_path / "base")
    plain = find_bench(tiny_llama.base, tiny_llama.data)
    penalised = find_bench(str(tmp_path / "base"), tiny_llama.data)
    settings = tmp_path / "base" / "generation_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "repetition_penalty": 4.0}))
    texts = []
    for bench in (plain, penalised):
        answerers = list(LiveModels().answerers(bench, []))
        ids = written_prompt(bench, "name word1")
        *_, last = stream_answers(answerers, ids, bench.splits().test.task, max_new_tokens=12)
        tokenizer = tokenizer_of(bench.base_folder())
        assert last.text == tokenizer.decode(generate(bench.build(), [ids], tokenizer, 12)[0], skip_special_tokens=True)
        texts.append(last.text)
    assert texts[0] != texts[1]


def test_a_run_on_other_weights_is_refused(runs: dict[str, ll.Run]) -> None:
    run = runs["lora"]
    other = replace(run.spec, base_sha256="0")
    with pytest.raises(AdapterError, match="trained on a base with other weights"):
        list(LiveModels().answerers(find_bench(run.spec.bench, run.spec.data), [(other, run.adapter_dir)]))


def test_latest_keeps_the_newest_of_each_and_closes_the_stream() -> None:
    closed = []

    def stream() -> Any:
        try:
            for n in range(1, 200):
                yield Said("a" if n % 2 else "b", "x" * n, n, 1.0)
        finally:
            closed.append(True)

    shown = list(latest(stream(), every_s=100.0))
    assert [len(one) for one in shown] == [1, 2]
    assert {who: said.tokens for who, said in shown[-1].items()} == {"a": 199, "b": 198}
    first = latest(stream(), every_s=0.0)
    next(first)
    first.close()
    assert closed == [True, True]


def test_a_digit_is_judged_as_the_split_is(digits_run: Any) -> None:
    bench = find_bench("digits")
    split = bench.splits().test
    question = question_of(bench, 7)
    pixels = torch.tensor(question.pixels)
    torch.testing.assert_close(pixels, (split.columns["pixel_values"][7, 0] + 1) / 2)
    assert (answer_kind(bench), question.label, question.text) == ("labels", int(split.columns["labels"][7]), "")
    base, run = judge(
        list(LiveModels().answerers(bench, [(digits_run.spec, digits_run.adapter_dir)])),
        inputs_of(bench, question, ""),
        labels=True,
    )
    batch = {"pixel_values": split.columns["pixel_values"][7:8]}
    with torch.no_grad():
        for one, model in ((base, bench.build()), (run, open_run(digits_run.spec, digits_run.adapter_dir))):
            wanted = model(**batch).logits[0].softmax(0)
            torch.testing.assert_close(torch.tensor(one.shares), wanted)
            assert one.label == int(wanted.argmax())
    assert base.shares != run.shares


def test_a_typed_text_is_judged_as_the_example_is(tiny_base: Path, tmp_path: Path) -> None:
    rows = [{"text": f"{word} is word{i % 7}", "label": word} for i in range(20) for word in ("good", "bad")]
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ll.DataSpec(path=str(file))
    run = ll.train(str(tiny_base), ll.LoraSpec(r=2), data=data, steps=4, learning_rate=0.05, runs=tmp_path / "runs")
    bench = find_bench(str(tiny_base), data)
    question = question_of(bench, 3)
    assert question.text.split()[0] == bench.label_names()[question.label]  # type: ignore[index]
    answerers = list(LiveModels().answerers(bench, pairs([run])))
    base, judged = judge(answerers, inputs_of(bench, question, question.text), labels=True)
    batch = {name: column for name, column in bench.splits().test.batch(torch.tensor([3])).items() if name != "labels"}
    with torch.no_grad():
        wanted = open_run(run.spec, run.adapter_dir)(**batch).logits[0].softmax(0)
    torch.testing.assert_close(torch.tensor(judged.shares), wanted)
    assert base.shares != judged.shares
    assert question_of(bench, question.rows - 1).next_row == 0


@pytest.mark.parametrize("text", ["", " \n "])
def test_nothing_asked_is_refused(tiny_llama: SimpleNamespace, text: str) -> None:
    with pytest.raises(DataError, match="at least one word"):
        written_prompt(find_bench(tiny_llama.base, tiny_llama.data), text)


def test_bad_requests_are_refused_at_the_call(tiny_llama: SimpleNamespace) -> None:
    bench = find_bench(tiny_llama.base, tiny_llama.data)
    task = bench.splits().test.task
    with pytest.raises(SpecError, match="max_new_tokens"):
        stream_answers([], [3], task, max_new_tokens=0)
    with pytest.raises(SpecError, match="prompt_ids"):
        stream_answers([], [], task, max_new_tokens=1)
    with pytest.raises(DataError, match=r"in 0\.\."):
        question_of(bench, 10_000)
    with pytest.raises(DataError, match=r"in 0\.\."):
        question_of(bench, -1)
