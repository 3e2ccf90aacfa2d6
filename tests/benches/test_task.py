"""Losses and metrics of a task against definitions and libraries of their own."""

import math

import pytest
import torch
from torch import nn

from lora_lab.benches import Split
from lora_lab.benches.task import Classification, Regression, task_loss
from lora_lab.metrics import METRICS
from lora_lab.training import evaluate


class Fixed(nn.Module):
    """A model whose logits are a column of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> object:
        return type("Output", (), {"logits": logits})


def a_split(logits: list[list[float]], labels: list[float], task: object) -> Split:
    return Split({"logits": torch.tensor(logits), "labels": torch.tensor(labels)}, task)


def test_accuracy_and_cross_entropy_are_those_of_their_definitions() -> None:
    split = a_split([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], [0, 1, 1], Classification())
    score = evaluate(Fixed(), split)
    assert score.value == pytest.approx(2 / 3)
    by_hand = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1)), math.log(1 + math.exp(3))]
    assert score.loss == pytest.approx(sum(by_hand) / 3)


def test_matthews_is_its_definition_on_a_table_of_four() -> None:
    predicted, labels = [1] * 6 + [0] * 4, [1] * 4 + [0] * 2 + [0] * 3 + [1]  # 4 true, 2 false; 3 true, 1 false
    split = a_split([[0.0, 1.0] if p else [1.0, 0.0] for p in predicted], labels, Classification("matthews"))
    by_hand = (4 * 3 - 2 * 1) / math.sqrt(6 * 5 * 5 * 4)
    assert evaluate(Fixed(), split).value == pytest.approx(by_hand)


def test_pearson_does_not_see_shift_and_scale_and_the_loss_does() -> None:
    labels = [1.0, 2.5, 4.0, 0.5]
    exact = evaluate(Fixed(), a_split([[v] for v in labels], labels, Regression()))
    moved = evaluate(Fixed(), a_split([[3 * v - 2] for v in labels], labels, Regression()))
    assert exact.value == pytest.approx(1)
    assert moved.value == pytest.approx(1)
    assert (exact.loss, moved.loss) == (0, pytest.approx(sum((2 * v - 2) ** 2 for v in labels) / 4))


def test_a_constant_answer_has_no_correlation() -> None:
    assert evaluate(Fixed(), a_split([[1.0], [1.0]], [0.0, 1.0], Regression())).value is None


def test_the_metric_is_left_out_where_it_is_not_asked_for() -> None:
    split = a_split([[2.0, 0.0]], [0], Classification())
    score = evaluate(Fixed(), split, score=False)
    assert score.value is None
    assert score.loss == evaluate(Fixed(), split).loss


def test_order_and_size_of_batches_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(150, 3, generator=generator), torch.randint(0, 3, (150,), generator=generator)
    whole, small = (Split({"logits": logits, "labels": labels}, Classification(rows_a_batch=n)) for n in (150, 7))
    one, other = evaluate(Fixed(), whole), evaluate(Fixed(), small)
    assert one.value == other.value
    assert one.loss == pytest.approx(other.loss)


def test_a_batch_loss_is_the_mean_over_its_rows() -> None:
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    output = type("Output", (), {"logits": logits})
    assert task_loss(Classification(), output, {"labels": labels}) == pytest.approx(
        float(nn.functional.cross_entropy(logits, labels))
    )


def test_every_metric_says_its_value_and_its_change() -> None:
    for metric in METRICS.values():
        assert metric.label
        assert metric.text(0.5) != metric.text(0.25)
        assert metric.change(0.25).startswith("+")
        assert metric.change(-0.25).startswith("-")
    assert [name for name, metric in METRICS.items() if not metric.higher_is_better] == ["loss"]
