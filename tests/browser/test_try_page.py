"""Try it in a real browser: what stands in the columns is what the core says."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect

import lora_lab as ll
from lora_lab.benches import find_bench
from lora_lab.benches.writing import Writing, generate, tokenizer_of
from lora_lab.inference import LiveModels, inputs_of, judge, open_run, question_of
from lora_lab.units import percent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(app: Any, tiny_llama: SimpleNamespace, make_writer: Callable[..., Any]) -> SimpleNamespace:
    """In the app's store a run on the digits, two of the tiny Llama, and one of a Llama that takes seconds to write."""
    digits = ll.train("digits", ll.LoraSpec(r=4), steps=40, runs=app.runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writing, "score", lambda *_: None)
        settings = {"steps": 3, "batch_size": 4, "warmup_steps": 0, "learning_rate": 0.03, "runs": app.runs}
        written = ll.train(tiny_llama.base, ll.MethodSpec(method="lora", r=2), data=tiny_llama.data, **settings)
        prefix = ll.train(tiny_llama.base, ll.MethodSpec(method="prefix", r=2), data=tiny_llama.data, **settings)
        slow = make_writer(layers=40)
        slow = ll.train(slow.base, ll.LoraSpec(r=2), data=slow.data, steps=0, runs=app.runs)
    return SimpleNamespace(digits=digits, written=written, prefix=prefix, slow=slow)


def card(page: Page, who: str) -> Any:
    return page.locator(f'#answers [data-who="{who}"]')


def open_own(open_page: Callable[..., Page], run: Any, more: str = "") -> Page:
    """The page of the run's bench, once it is there."""
    page = open_page(f"/try?bench=yours&base={run.spec.bench}&data={run.spec.data.path}{more}")
    expect(card(page, "base")).to_have_attribute("data-state", "waiting", timeout=30_000)
    return page


def test_a_digit_is_drawn_asked_and_answered(open_page: Callable[..., Page], runs: SimpleNamespace) -> None:
    page = open_page("/try?bench=digits&example=3")
    expect(page.locator("#picture rect")).to_have_count(64)
    page.locator("#another").click()
    bench = find_bench("digits")
    question = question_of(bench, 4)
    expect(page.locator("#question")).to_contain_text(f"It is {question.label}.")
    assert "example=4" in page.url
    page.locator("#ask").click()
    answerers = list(LiveModels().answerers(bench, [(runs.digits.spec, runs.digits.adapter_dir)]))
    for one in judge(answerers, inputs_of(bench, question, ""), labels=True):
        shares = [percent(share) for share in one.shares]
        expect(card(page, one.who).locator(".value")).to_have_text(shares, timeout=30_000)
        expect(card(page, one.who)).to_contain_text("✓ right" if one.label == question.label else "✗ wrong")
    expect(page.locator("#halt")).to_be_disabled()


def test_a_prompt_is_answered_side_by_side_as_generate_writes(open_page: Callable[..., Page], runs: SimpleNamespace) -> None:
    page = open_own(open_page, runs.written)
    page.locator("#prompt textarea").fill("name word3 says word9")
    page.locator("#tokens input[type=number]").fill("6")
    page.locator("#ask").click()
    bench = find_bench(runs.written.spec.bench, runs.written.spec.data)
    tokenizer = tokenizer_of(bench.base_folder())
    prompt = tokenizer("name word3 says word9")["input_ids"]
    models = {"base": bench.build()} | {run.run_id: open_run(run.spec, run.adapter_dir) for run in (runs.written, runs.prefix)}
    texts = []
    for who, model in models.items():
        with torch.inference_mode():
            wanted = tokenizer.decode(generate(model, [prompt], tokenizer, 6)[0], skip_special_tokens=True)
        expect(card(page, who)).to_have_attribute("data-state", "done", timeout=30_000)
        expect(card(page, who).locator(".lab-written")).to_have_text(wanted)
        texts.append(wanted)
    assert len(set(texts)) > 1


def test_stop_ends_an_answer_and_the_next_one_is_given(open_page: Callable[..., Page], runs: SimpleNamespace) -> None:
    page = open_own(open_page, runs.slow, "&asked=base")
    page.locator("#prompt textarea").fill("name word5")
    page.locator("#tokens input[type=number]").fill("256")
    page.locator("#ask").click()
    card(page, "base").locator(".lab-caret").wait_for(timeout=30_000)
    page.locator("#halt").click()
    expect(card(page, "base")).to_have_attribute("data-state", "stopped", timeout=10_000)
    expect(card(page, "base")).to_contain_text("Stopped.")
    said = card(page, "base").inner_text()
    page.wait_for_timeout(1500)
    assert card(page, "base").inner_text() == said
    page.locator("#tokens input[type=number]").fill("2")
    page.locator("#ask").click()
    expect(card(page, "base")).to_have_attribute("data-state", "done", timeout=30_000)


def test_whom_to_ask_is_in_the_address(open_page: Callable[..., Page], runs: SimpleNamespace) -> None:
    page = open_page(f"/try?bench=digits&asked={runs.digits.run_id}")
    expect(page.locator("#answers .lab-answer")).to_have_count(2)
    page.locator("#asked [title=Clear]").click()
    expect(page.locator("#answers .lab-answer")).to_have_count(1)
    page.wait_for_url("**asked=base**")


def test_a_bench_without_a_run_says_where_to_train_one(open_page: Callable[..., Page], runs: SimpleNamespace) -> None:
    page = open_page("/try?bench=digits:noised")
    page.locator("#empty a").click()
    page.wait_for_url("**/?bench=digits:noised")
    expect(page.locator("#bench input:checked")).to_have_value("digits:noised")
