"""The sentences under a search: who leads, whether that is more than luck, what the test split says, how trials were dropped."""

from lora_lab.analysis.search_records import SearchRecord
from lora_lab.plots.leader_captions import leader_caption
from lora_lab.search_spec import point_text
from lora_lab.units import count


def search_caption(record: SearchRecord) -> str:
    """The best trial, and what the spread over further seeds supports."""
    best = record.best
    if best is None or best.score is None:
        return "No trial has come to the end of the search."
    rows = [row for row in record.confirmed if row.mean is not None]
    if not rows:
        score = record.metric.text(best.score)
        name = trial_text(record, best.trial)
        return f"{name} scored best on the validation split, {score}, with one seed: that does not tell skill from luck."
    return leader_caption(
        rows,
        record.between,
        record.metric,
        name=trial_text(record, rows[0].trial),
        short=lambda row: f"trial {row.trial}",
        seeds=" that the search did not use",
        others="trial that was trained again",
    )


def trial_text(record: SearchRecord, trial: int) -> str:
    """A trial by number and point: "Trial 3 (r 8, lr 0.012)"."""
    return f"Trial {trial} ({point_text(record.varied(trial))})"


def rungs_caption(ladder: tuple[tuple[int, int], ...], confirm_runs: int) -> str:
    """What a search is about to do, in a sentence.

    >>> rungs_caption(((9, 22), (3, 66)), 4)
    '9 trials of 22 steps, 3 trials of 66 steps, and up to 4 runs of 66 steps with further seeds.'
    """
    rungs = [f"{trials} {'trial' if trials == 1 else 'trials'} of {count(steps)} steps" for trials, steps in ladder]
    further = f"and up to {confirm_runs} runs of {count(ladder[-1][1])} steps with further seeds"
    return ", ".join([*rungs, *([further] if confirm_runs else [])]) + "."
