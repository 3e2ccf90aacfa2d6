"""What a task is scored by: names, and how people read the numbers."""

from dataclasses import dataclass
from typing import Literal

from lora_lab.units import percent

MetricUnit = Literal["share", "points", "coefficient", "nats"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that says how well a task is done. A share is in 0..1, points in 0..100, a coefficient in -1..1."""

    label: str
    unit: MetricUnit
    higher_is_better: bool = True

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


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", "share"),
    "matthews": Metric("Matthews correlation", "coefficient"),
    "pearson": Metric("Pearson correlation", "coefficient"),
    "bleu": Metric("BLEU", "points"),
    "rouge_l": Metric("ROUGE-L", "coefficient"),
    "execution_accuracy": Metric("execution accuracy", "share"),
    "loss": Metric("loss (nats)", "nats", higher_is_better=False),  # where there is nothing else
}
