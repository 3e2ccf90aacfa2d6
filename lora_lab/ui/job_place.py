"""A place that starts a job and watches it: in workers it goes on by itself, on ZeroGPU the handler drives it."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from lora_lab.specs import RunSpec
from lora_lab.sweeps import Job
from lora_lab.sweeps.runners import Tagged
from lora_lab.ui import html
from lora_lab.ui.place import Place
from lora_lab.ui.selection import Selection
from lora_lab.ui.zero import runs_inline, zero_events


class JobPlace(Place):
    """Start and Stop. The job's name is in the selection, and so in the address."""

    def start_job(self, selection: Selection, name: str, job: Job) -> Iterator[list[Any]]:
        """Selection, header, timer, Stop and Start as they are from now on; where this handler drives, nothing new after that."""
        selection = replace(selection, job=name)
        buttons = [gr.Button(interactive=True), gr.Button(interactive=False)]
        begun = [selection, self.header_of(selection), gr.Timer(active=True), *buttons]
        if not runs_inline():
            job.start()
            yield begun
            return
        yield begun
        for _ in job.pump(job.rounds(self._on_zero), closes=True):
            yield [gr.skip()] * len(begun)

    def _on_zero(self, specs: Sequence[RunSpec]) -> Generator[Tagged, None, None]:
        return zero_events(tuple(specs), str(self.lab.store.root), self.lab.device)

    def halt(self, selection: Selection) -> list[Any]:
        """Stop, and say at once that it is being done."""
        job = self._job(selection)
        if job:
            job.stop()
        return [html.job_status(job), gr.Button(interactive=False)]

    def _job(self, selection: Selection) -> Job | None:
        return self.lab.jobs.get(selection.job)
