"""What a task is scored by: names, and how people read the numbers."""

from dataclasses import dataclass
from typing import Literal

from lora_lab.units import percent, plus_minus

MetricUnit = Literal["share", "points", "coefficient", "nats"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that says how well a task is done. A share is in 0..1, points in 0..100, a coefficient in -1..1."""

    label: str
    unit: MetricUnit
    higher_is_better: bool = True

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return 1 if self.higher_is_better else -1

    @property
    def heading(self) -> str:
        """The label over numbers of `cell`, with the unit that they leave out.

        >>> METRICS["accuracy"].heading, METRICS["bleu"].heading
        ('accuracy, %', 'BLEU')
        """
        return f"{self.label}, %" if self.unit == "share" else self.label

    def text(self, value: float) -> str:
        """The value as people read it.

        >>> METRICS["accuracy"].text(0.8249), METRICS["bleu"].text(41.27), METRICS["matthews"].text(0.6341)
        ('82.5 %', '41.3', '0.634')
        """
        if self.unit == "share":
            return percent(value)
        return f"{value:.1f}" if self.unit == "points" else f"{value:.3f}"

    def change(self, value: float) -> str:
        """A difference of two values, with its sign.

        >>> METRICS["accuracy"].change(-0.031), METRICS["bleu"].change(2.0)
        ('-3.1 points', '+2.0')
        """
        if self.unit == "share":
            return f"{100 * value:+.1f} points"
        return f"{value:+.1f}" if self.unit == "points" else f"{value:+.3f}"

    def cell(self, mean: float, sd: float | None) -> str:
        """Mean ± sd as papers print them in a table, shares in points of a hundred.

        >>> METRICS["accuracy"].cell(0.8712, 0.0124), METRICS["matthews"].cell(0.634, None)
        ('87.1 ± 1.2', '0.634')
        """
        factor = 100 if self.unit == "share" else 1
        digits = 1 if self.unit in ("share", "points") else 3
        return plus_minus(factor * mean, None if sd is None else factor * sd, digits)


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", "share"),
    "matthews": Metric("Matthews correlation", "coefficient"),
    "pearson": Metric("Pearson correlation", "coefficient"),
    "bleu": Metric("BLEU", "points"),
    "rouge_l": Metric("ROUGE-L", "coefficient"),
    "execution_accuracy": Metric("execution accuracy", "share"),
    "loss": Metric("loss (nats)", "nats", higher_is_better=False),  # where there is nothing else
}


class Scored:
    """Whatever names the metric that it is scored by."""

    __slots__ = ()
    metric_name: str

    @property
    def metric(self) -> Metric:
        """What it is scored by."""
        return METRICS[self.metric_name]

    @property
    def sign(self) -> int:
        """1 where a higher score is better, -1 where a lower one is."""
        return self.metric.sign
