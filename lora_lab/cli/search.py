"""`search`: runs drawn from a space, halved rung by rung, the best of them trained again with further seeds."""

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from lora_lab.cli.flags import (
    axes,
    bench_flags,
    command,
    data_of,
    grouped_flag,
    grouped_of,
    number,
    optional,
    prepare,
    print_json,
    runner_flags,
)
from lora_lab.cli.train import print_plan, report_progress
from lora_lab.errors import SpecError
from lora_lab.search_spec import SearchSpec, parse_space
from lora_lab.units import seconds

if TYPE_CHECKING:
    from lora_lab.analysis.search_records import SearchRecord
    from lora_lab.sweeps.search import Search

# The core is imported inside each command: `--help` and the other commands wait for no torch.
# ruff: noqa: PLC0415


def add(commands: Any) -> None:
    """Put `search` on the parser."""
    search = command(
        commands, "search", _search, "draw runs from a space, at random or by successive halving, and confirm the best"
    )
    bench_flags(search)
    space = (
        "dimensions separated by semicolons, each a flag of sweep: r=1:64:log;lr=1e-4:1e-1:log;targets=q,v|q,k,v,o;method=lora|dora"
    )
    search.add_argument("--space", required=True, help=space)
    search.add_argument("--trials", default="16", help="how many points of the space are drawn")
    search.add_argument("--halving", metavar="ETA", help="keep the best one in ETA, with ETA times the steps, rung by rung")
    search.add_argument("--rungs", help="how many; by default as many as trials and steps allow")
    search.add_argument(
        "--confirm", default="3x3", help="how many of the best to train again x with how many further seeds; 0 for none"
    )
    search.add_argument("--seed", default="0", help="of what is drawn, and of every trial")
    runner_flags(search)
    grouped_flag(search)
    search.add_argument("--plan", action="store_true", help="count the most runs, steps, bytes and time, and train nothing")


def _search(arguments: argparse.Namespace) -> int:
    from lora_lab.benches import find_bench
    from lora_lab.plots.search_captions import rungs_caption
    from lora_lab.sweeps.search import plan_search, run_search

    spec = _spec(arguments)
    prepare(arguments)
    plan = plan_search(find_bench(arguments.bench, data_of(arguments)), spec)
    print(rungs_caption(plan.ladder, spec.confirming_runs), file=sys.stderr, flush=True)
    if arguments.plan:
        return print_plan(plan.most_runs(), arguments)
    found = run_search(
        plan,
        arguments.runs,
        runner=arguments.runner,
        device=arguments.device,
        grouped=grouped_of(arguments),
        address=arguments.address,
        watch=report_progress,
    )
    for run_id, message in found.failed.items():
        print(f"{run_id}: {message}", file=sys.stderr)
    if arguments.json:
        print_json(_document(found))
    else:
        _print(found)
    return 1 if found.failed else 0


def _spec(arguments: argparse.Namespace) -> SearchSpec:
    best, further = _confirm(arguments.confirm)
    return SearchSpec(
        space={**axes(arguments), **parse_space(arguments.space)},
        trials=number("trials", arguments.trials, int),
        steps=optional("steps", arguments.steps, int),
        eta=optional("halving", arguments.halving, int),
        rungs=optional("rungs", arguments.rungs, int),
        confirm=best,
        confirm_seeds=further,
        seed=number("seed", arguments.seed, int),
    )


def _confirm(text: str) -> tuple[int, int]:
    """(how many of the best, with how many further seeds)."""
    if text.strip() == "0":
        return 0, 1
    found = re.fullmatch(r"\s*(\d+)\s*[x×]\s*(\d+)\s*", text)
    if found is None:
        raise SpecError(f"--confirm must be two numbers such as 3x3, or 0. Got {text!r}.")
    return int(found[1]), int(found[2])


def _document(found: "Search") -> dict[str, Any]:
    from lora_lab.plots.search_captions import search_caption

    return {
        "bench": found.record.bench,
        "metric": found.record.metric_name,
        **found.record.to_json(),
        "sentence": search_caption(found.record),
        "runs": [run.to_json() for run in found.runs],
        "skipped": list(found.skipped),
        "failed": found.failed,
        "wall_s": found.wall_s,
    }


def _print(found: "Search") -> None:
    from lora_lab.plots.search_captions import search_caption

    _print_rungs(found.record)
    _print_confirmed(found.record)
    print(search_caption(found.record))
    print(f"{len(found.runs)} runs, {len(found.skipped)} of them in the store already, {seconds(found.wall_s)}")


def _print_rungs(record: "SearchRecord") -> None:
    from lora_lab.search_spec import point_text

    print(f"{'steps':>7} {'trial':>5} {'score':>9} {'loss':>7} {'run':12}  point")
    for rung in record.rungs:
        for one in rung.placed:
            score = "" if one.score is None else record.metric.text(one.score)
            loss = "" if one.loss is None else f"{one.loss:.3f}"
            said = one.fate if one.score is None else point_text(record.varied(one.trial))
            print(f"{rung.steps:>7} {one.trial:>5} {score:>9} {loss:>7} {one.run_id:12}  {said}")


def _print_confirmed(record: "SearchRecord") -> None:
    from lora_lab.plots.leader_captions import on_test_text, validation_text
    from lora_lab.plots.search_captions import trial_text

    if record.confirmed:
        print("over further seeds")
    for row in record.confirmed:
        metric = record.metric
        print(f"{validation_text(metric, row):>18}  test {on_test_text(metric, row):>18}  {trial_text(record, row.trial)}")
