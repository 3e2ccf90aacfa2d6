"""Small pieces of HTML in the page's look."""

from collections.abc import Iterable, Sequence
from html import escape

from lora_lab.benches import Bench
from lora_lab.errors import LabError
from lora_lab.inference import MergeReport
from lora_lab.metrics import METRICS
from lora_lab.plots import merge_way, small_share
from lora_lab.plots.html_parts import question as question
from lora_lab.plots.html_parts import say as say
from lora_lab.specs import unique
from lora_lab.sweeps.jobs import Job
from lora_lab.sweeps.passes import Pass, passes_of
from lora_lab.sweeps.sentences import progress_sentence, state_sentence

PICK_JS = """
element.addEventListener('click', (e) => {
  const picked = e.target.closest('[data-pick]');
  if (picked) trigger('click', {pick: picked.dataset.pick});
});
element.addEventListener('keydown', (e) => {
  const picked = e.target.closest('[data-pick]');
  if (picked && (e.key === 'Enter' || e.key === ' ')) { e.preventDefault(); trigger('click', {pick: picked.dataset.pick}); }
});
"""

SAVE_JS = "() => setTimeout(() => (document.querySelector('#{0} a') || document.querySelector('#{0}')).click(), 300)"


def about(bench: Bench) -> str:
    """What a bench is, and what there is to know of its base's weights, where they can be had."""
    try:
        note = bench.note()
    except LabError:
        note = ""
    return "".join(f'<div class="lab-s">{escape(sentence)}</div>' for sentence in (bench.about, note) if sentence)


def runs_table(rows: Iterable[Sequence[str]], links: Iterable[str]) -> str:
    """A row a run, its id a link to look inside where there is one."""
    titles = (
        "run",
        "method",
        "r",
        "α",
        "targets",
        "lr",
        "seed",
        "trainable",
        "peak memory",
        "score",
        "loss (nats)",
        "status",
        "",
    )
    head = "".join(f"<th>{title}</th>" for title in titles)
    body = ""
    for row, link in zip(rows, links, strict=True):
        name, *rest = (escape(text) for text in row)
        opened = f'<a class="lab-link" href="{link}" title="look inside">{name}</a>' if link else name
        body += f"<tr><td>{opened}</td>{''.join(f'<td>{text}</td>' for text in rest)}</tr>"
    if not body:
        return '<div class="lab-s">No run is kept yet: press Start.</div>'
    return f'<div class="lab-scroll"><table class="lab-table" id="runs-table"><tr>{head}</tr>{body}</table></div>'


def merge_table(report: MergeReport) -> str:
    """Score and how far the logits are from those of the run as it was trained, a row a way to merge."""

    def shown(score: float | None) -> str:
        return "" if score is None else METRICS[report.metric].text(score)

    rows = [("as trained", "", shown(report.score))]
    rows += [(merge_way(way), small_share(way.difference) or "not to be had", shown(way.score)) for way in report.ways]
    if report.unquantized:
        rows.append(
            ("on the base before it was quantized", small_share(report.unquantized.difference), shown(report.unquantized.score))
        )
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    head = f"<tr><th></th><th>logits differ by</th><th>{METRICS[report.metric].label} on {report.rows}</th></tr>"
    return f'<div class="lab-wide"><table class="lab-table" id="merge-table">{head}{body}</table></div>'


def job_status(job: Job | None) -> str:
    """Steps done, time left and who is at work, or how it ended."""
    if job is None:
        return ""
    bar = f'<div class="lab-bar"><i style="width:{job.share_done:.1%}"></i></div>'
    error = say(job.message, kind="error") if job.message else ""
    told = f"<span>{escape(progress_sentence(job))}</span> <span>{escape(state_sentence(job))}</span>"
    status = f'<div class="lab-status" data-state="{job.state}">{bar}{told}</div>{error}'
    return status if job.ended else status + _at_work(job)


def _at_work(job: Job) -> str:
    """A line a worker with the pass that it is in, and how many runs wait."""
    under_way = passes_of(job.runs.values())
    waiting = sum(run.start is None and run.done is None for run in job.runs.values())
    lines = "".join(_pass_line(i, one) for i, one in enumerate(under_way, 1))
    waits = f'<div class="lab-s">{waiting} {"run waits" if waiting == 1 else "runs wait"}</div>' if waiting else ""
    return f'<div class="lab-passes" id="passes">{lines}{waits}</div>' if lines or waits else ""


def _pass_line(number: int, one: Pass) -> str:
    ranks = unique(sorted(run.spec.tuning.r for run in one.runs if run.spec.tuning.has_r))
    r = f", r {ranks[0]}" + (f"–{ranks[-1]}" if len(ranks) > 1 else "") if ranks else ""
    lost = f", {one.begun - len(one.runs)} ended" if len(one.runs) < one.begun else ""
    what = f"{len(one.runs)} runs in one pass{r}{lost}" if one.begun > 1 else f"1 run{r}"
    share = f"{one.share_done:.1%}"
    bar = f'<div class="lab-bar"><i style="width:{share}"></i></div>'
    return f'<div class="lab-pass"><span>worker {number}: {what}</span><span>step {one.step} of {one.steps}</span>{bar}</div>'


_PLACES = (("Budget", "./budget"), ("Train", "./"), ("Look", "./look"))
_ROOMS = {
    "Train": (("Sweep", "./"), ("Results", "./results"), ("Methods", "./methods"), ("Latency", "./latency"), ("Try it", "./try")),
    "Look": (("Spectra", "./look"), ("Subspaces", "./subspaces"), ("Amplification", "./amplification"), ("The paper", "./paper")),
}


def header(place: str, query: str, *, device: str, room: str = "") -> str:
    """Name, places, the rooms of this place, device. Its script writes the query into the address."""
    tail = f"?{query}" if query else ""
    rooms = f'<nav class="lab-rooms" aria-label="{place}">{_links(_ROOMS[place], room, tail)}</nav>' if place in _ROOMS else ""
    return (
        f'<div class="lab-header" data-query="{escape(tail)}"><b>LoRA Lab</b><nav>{_links(_PLACES, place, tail)}</nav>{rooms}'
        f'<div class="lab-right"><span class="lab-chip">{escape(device)}</span>'
        '<button class="lab-chip" data-act="share" title="copy the address of what you see">share</button>'
        '<button class="lab-chip" data-act="theme" title="light or dark" aria-label="light or dark">◐</button></div></div>'
    )


def _links(places: Sequence[tuple[str, str]], here: str, tail: str) -> str:
    on = " class=on aria-current=page"
    return "".join(f'<a href="{path}{escape(tail)}"{on if name == here else ""}>{name}</a>' for name, path in places)


HEADER_JS = """
const sync = () => {
  const bar = element.querySelector('.lab-header');
  if (bar) history.replaceState(null, '', location.pathname + bar.dataset.query + location.hash);
};
watch('value', sync);
const kept = localStorage.getItem('lora-lab-theme');
if (kept) document.body.classList.toggle('dark', kept === 'dark');
element.addEventListener('click', (e) => {
  const act = e.target.closest('[data-act]')?.dataset.act;
  if (act === 'theme') {
    const dark = document.body.classList.toggle('dark');
    localStorage.setItem('lora-lab-theme', dark ? 'dark' : 'light');
  }
  if (act === 'share') {
    if (navigator.clipboard) {
      navigator.clipboard.writeText(location.href);
      e.target.textContent = 'copied';
      setTimeout(() => { e.target.textContent = 'share'; }, 1200);
    } else {
      prompt('The address of what you see:', location.href);
    }
  }
});
"""
