"""Benches that write: SmolLM2 puts restaurant facts into a sentence, or a question about a table into SQL."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedModel

from lora_lab.assets import Notify
from lora_lab.benches.bench import Bench, Defaults, Retention, Splits
from lora_lab.benches.examples import TextData
from lora_lab.benches.restaurants import restaurants
from lora_lab.benches.retention import fixed_text
from lora_lab.benches.smollm import HUB_ID, NOTE, is_dequantized, smollm_folder
from lora_lab.benches.tables import table_questions
from lora_lab.benches.text import MAX_WRITTEN_TOKENS, completions, language_model
from lora_lab.benches.writing import Writing


@dataclass(frozen=True)
class Recipe:
    """What a bench that writes is made of: its rows, how long an answer may become, and how many rows are read."""

    data: Callable[[], TextData]
    max_new_tokens: int
    validation_rows: int
    test_rows: int
    scored_rows: int


RECIPES = {
    "e2e": Recipe(restaurants, max_new_tokens=44, validation_rows=64, test_rows=64, scored_rows=48),
    "sql": Recipe(table_questions, max_new_tokens=36, validation_rows=64, test_rows=100, scored_rows=100),
}


class LanguageBench(Bench):
    """The base writes already: nothing but the method is trained."""

    base_name = HUB_ID
    max_tokens: ClassVar[int | None] = MAX_WRITTEN_TOKENS

    def base_folder(self, *, notify: Notify = lambda _: None) -> Path:
        return smollm_folder(notify=notify)

    def build(self, *, meta: bool = False) -> PreTrainedModel:
        return language_model(self.base_folder(), meta=meta)

    def splits(self) -> Splits:
        return _splits(self.name, self.base_folder())

    def text_data(self) -> TextData:
        return _text_data(self.name)

    def retention(self) -> Retention:
        return Retention("loss", fixed_text(self.base_folder()))

    def note(self) -> str:
        return NOTE if is_dequantized(self.base_folder()) else ""


@cache
def _text_data(name: str) -> TextData:
    """Of the rows that are held out, those that are read."""
    recipe, data = RECIPES[name], RECIPES[name].data()
    return replace(data, validation=data.validation[: recipe.validation_rows], test=data.test[: recipe.test_rows])


@cache
def _splits(name: str, folder: Path) -> Splits:
    """Tokenised once a process."""
    recipe, data = RECIPES[name], _text_data(name)
    task = Writing(data.metric, folder=folder, max_new_tokens=recipe.max_new_tokens, scored_rows=recipe.scored_rows)
    parts: Sequence[Any] = (data.train, data.validation, data.test)
    return Splits(*(completions(folder, part, task) for part in parts))


def language_bench(name: str) -> LanguageBench:
    """`e2e` or `sql`."""
    base = "SmolLM2-135M-Instruct (Llama's architecture, 134.5 M parameters)"
    abouts = {
        "e2e": f"{base} puts facts about a restaurant into a sentence.",
        "sql": f"{base} turns a question about a table into SQL, which is run.",
    }
    steps = {"e2e": 60, "sql": 200}
    return LanguageBench(
        name=name,
        title=name,
        about=abouts[name],
        defaults=Defaults(steps=steps[name], batch_size=8, learning_rate=2e-3),
        task_type="CAUSAL_LM",
    )
