"""Does a bench show what the paper shows? A verdict and a paragraph for each analysis, from the numbers alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from lora_lab.analysis.base_records import Amplification
from lora_lab.analysis.chance import chance_level, chance_sd
from lora_lab.analysis.method_records import Difference
from lora_lab.plots.method_captions import gap_text, listed
from lora_lab.report.records import Evidence, PairMaps, ScoreCell, ScoreTable
from lora_lab.roles import layer_of, role_of

Verdict = Literal["agrees", "agrees in part", "does not agree", "cannot be told"]
_MARGIN = 0.1  # of what the best gains over the base: a loss below that is none worth a rank
_SDS = 4  # above chance: the tail of φ at i = 1 is long
_MOST = 0.5  # of the matrices: what fewer do is no finding


@dataclass(frozen=True, slots=True)
class Finding:
    """One analysis: what the paper claims, whether the bench shows it, and why."""

    key: str
    title: str
    source: str
    claim: str
    verdict: Verdict
    paragraph: str

    @property
    def is_found(self) -> bool:
        """Whether the bench shows something of what the paper claims."""
        return self.verdict in ("agrees", "agrees in part")


def findings(evidence: Evidence) -> tuple[Finding, ...]:
    """The five analyses in the paper's order; one that was not run is left out."""
    scores = [*([targets_finding(evidence.targets)] if evidence.targets else []), ranks_finding(evidence.ranks)]
    return (*scores, _two_ranks(evidence), _two_seeds(evidence), _amplification(evidence))


# Scores


def targets_finding(table: ScoreTable) -> Finding:
    """Table 5: q and v together against q or k alone, on the cells of one budget."""
    claim = "With as many parameters, q and v together do better than a larger rank on q or on k alone."
    both = next((cell for cell in table.cells if cell.targets == "q,v"), None)
    alone = [cell for cell in table.cells if cell.targets in ("q", "k")]
    best = table.best()
    if both is None or both.mean is None or best is None or len(alone) < 2:
        return Finding("targets", "Which matrices?", "Table 5", claim, "cannot be told", "Not all of these runs are there.")
    pairs = [(cell, table.between(both, cell)) for cell in alone]
    better = [cell.targets for cell, pair in pairs if _is_told(pair, table.metric.sign)]
    worse = [cell.targets for cell, pair in pairs if _is_told(pair, -table.metric.sign)]
    verdict: Verdict = (
        "does not agree" if worse else "agrees" if len(better) == 2 else "agrees in part" if better else "cannot be told"
    )
    parts = [
        f"{_name(best)} has the best mean, {_score(table, best)}; q, v at r = {both.r} has {_score(table, both)}.",
        *(_against(table, "q, v", cell, pair) for cell, pair in pairs),
        _told_from_best(table, best),
    ]
    return Finding("targets", "Which matrices?", "Table 5", claim, verdict, " ".join(parts))


def ranks_finding(table: ScoreTable) -> Finding:
    """Table 6: the smallest rank on q and v against the best."""
    claim = "A rank of one is enough for q and v: more adds little."
    planned = [cell for cell in table.cells if cell.targets == "q,v"]
    cells = [cell for cell in planned if cell.mean is not None]
    if len(cells) < 2 or min(planned, key=lambda cell: cell.r).mean is None:
        return Finding("ranks", "How much rank?", "Table 6", claim, "cannot be told", "Not all of these runs are there.")
    least = min(cells, key=lambda cell: cell.r)
    best = max(cells, key=lambda cell: table.metric.sign * (cell.mean or 0.0))
    if table.base is not None and table.metric.sign * ((best.mean or 0.0) - table.base) <= 0:
        nothing = f"No rank gains anything over the frozen base, which scores {table.metric.text(table.base)}."
        return Finding("ranks", "How much rank?", "Table 6", claim, "cannot be told", nothing)
    pair = table.between(least, best)
    enough = min(cell.r for cell in cells if cell is best or not _is_told(table.between(cell, best), -table.metric.sign))
    if least is best:
        parts = [f"On q, v r = {least.r} has the best mean of all ranks, {_score(table, least)}."]
    else:
        scores = f"On q, v r = {least.r} scores {_score(table, least)}, and the best rank, {best.r}, {_score(table, best)}."
        parts = [scores, _against(table, f"r = {best.r}", least, _turned(pair)), _at_most(table, best, pair)]
    parts.append(f"The smallest rank that the seeds do not tell from the best is {enough}.")
    paragraph = " ".join(filter(None, parts))
    return Finding("ranks", "How much rank?", "Table 6", claim, _rank_verdict(table, least, best, pair), paragraph)


def _rank_verdict(table: ScoreTable, least: ScoreCell, best: ScoreCell, pair: Difference | None) -> Verdict:
    if least is best:
        return "agrees"
    if pair is None or pair.difference is None or pair.half_width is None:
        return "cannot be told"
    if (lag := _lag(table, best, pair)) is not None and lag <= _MARGIN:
        return "agrees"
    return "does not agree" if _is_told(pair, -table.metric.sign) else "cannot be told"


def _lag(table: ScoreTable, best: ScoreCell, pair: Difference | None) -> float | None:
    """How far behind the best a rank may be, by the end of its interval, as a share of what the best gains over the base."""
    if pair is None or pair.difference is None or pair.half_width is None or table.base is None:
        return None
    gain = abs((best.mean or 0.0) - table.base)
    return (abs(pair.difference) + pair.half_width) / gain if gain else None


def _at_most(table: ScoreTable, best: ScoreCell, pair: Difference | None) -> str:
    lag = _lag(table, best, pair)
    if lag is None:
        return ""
    gain = f"what r = {best.r} gains over the frozen base, which scores {table.metric.text(table.base or 0.0)}"
    return f"That is at most {100 * lag:.0f} % of {gain}; up to {100 * _MARGIN:.0f} % is called little here."


def _is_told(pair: Difference | None, sign: int) -> bool:
    """Whether the first of the pair is told to be above the second (sign 1), or below (−1)."""
    return pair is not None and pair.is_told and pair.difference is not None and sign * pair.difference > 0


def _turned(pair: Difference | None) -> Difference | None:
    if pair is None or pair.difference is None:
        return pair
    return Difference(pair.second, pair.first, -pair.difference, pair.half_width, pair.p, pair.holm)


def _against(table: ScoreTable, what: str, other: ScoreCell, pair: Difference | None) -> str:
    if pair is None or pair.difference is None:
        return f"{what} and {_name(other)} cannot be compared."
    word = "ahead of" if table.metric.sign * pair.difference > 0 else "behind"
    told = "which the seeds tell" if pair.is_told else "which the spread over seeds does not tell from nothing"
    return f"{what} is {gap_text(table.metric, pair)} {word} {_name(other)}, {told}."


def _told_from_best(table: ScoreTable, best: ScoreCell) -> str:
    behind = [_name(c) for c in table.cells if c is not best and _is_told(table.between(best, c), table.metric.sign)]
    return f"Told to be behind the best: {listed(behind, most=6)}." if behind else "No choice is told to be behind the best."


def _name(cell: ScoreCell) -> str:
    return f"{cell.targets.replace(',', ', ')} at r = {cell.r}"


def _score(table: ScoreTable, cell: ScoreCell) -> str:
    spread = f" ± {table.metric.text(cell.sd)}" if cell.sd is not None else ""
    return f"{table.metric.text(cell.mean or 0.0)}{spread}"


# Subspaces


def _two_ranks(evidence: Evidence) -> Finding:
    claim = "The leading direction of a small rank lies in that of a large one (φ above a half); the others are not shared."
    maps, title = evidence.two_ranks, f"Does r = {evidence.small} find what r = {evidence.large} finds?"
    first = [phi for name in evidence.matrices if (phi := maps.at(name, 1, 1)) is not None]
    if not first:
        return Finding("two_ranks", title, "Figure 3", claim, "cannot be told", "No matrix has a direction in both runs.")
    half, above = sum(phi > _MOST for phi in first), _above(maps, evidence.matrices, 1)
    verdict: Verdict = (
        "agrees" if half > _MOST * len(first) else "agrees in part" if above > _MOST * len(first) else "does not agree"
    )
    parts = [
        f"φ(1, 1) has a median of {median(first):.2f} over {len(first)} matrices and is above a half in {half}; chance gives"
        f" {_chance(maps, 1):.3f}, and {above} lie above it by more than random subspaces do.",
        _beyond_first(evidence),
        _control(evidence.two_ranks_at_start, evidence, "the start values, before the first step,"),
    ]
    return Finding("two_ranks", title, "Figure 3", claim, verdict, " ".join(parts))


def _beyond_first(evidence: Evidence) -> str:
    """What φ(small, large) says of all directions of the small rank together."""
    i, j = evidence.small, evidence.large
    all_ = [phi for name in evidence.matrices if (phi := evidence.two_ranks.at(name, i, j)) is not None]
    if not all_:
        return ""
    d = next(iter(evidence.two_ranks.first.values())).dimension
    return f"All {i} directions together: φ({i}, {j}) is {median(all_):.2f}, where chance gives {chance_level(i, j, d):.2f}."


def _two_seeds(evidence: Evidence) -> Finding:
    claim = "Two seeds share more directions than chance gives, and q more of them than v."
    maps, title = evidence.two_seeds, "Do two seeds find the same directions?"
    i = min(4, evidence.large)
    found = [phi for name in evidence.matrices if (phi := maps.at(name, i, i)) is not None]
    if not found:
        return Finding("two_seeds", title, "Figure 4", claim, "cannot be told", "No matrix has a direction in two seeds.")
    above = _above(maps, evidence.matrices, i)
    pairs = [(q, v) for q, v in _q_and_v(evidence, maps) if q is not None and v is not None]
    wider = sum(q > v for q, v in pairs)
    shared = above > _MOST * len(found)
    verdict: Verdict = "does not agree" if not shared else "agrees" if pairs and wider > 0.75 * len(pairs) else "agrees in part"
    parts = [
        f"φ({i}, {i}) has a median of {median(found):.2f} over {len(found)} matrices, where chance gives {_chance(maps, i):.3f};"
        f" {above} lie above it by more than random subspaces do.",
        *([f"q shares more above chance than v in {wider} of {len(pairs)} layers."] if pairs and shared else []),
        _control(evidence.two_seeds_at_start, evidence, "the start values, before the first step,"),
        _control(evidence.two_random, evidence, "random matrices"),
    ]
    return Finding("two_seeds", title, "Figure 4", claim, verdict, " ".join(parts))


def _q_and_v(evidence: Evidence, maps: PairMaps) -> list[tuple[float | None, float | None]]:
    """Mean φ above chance of q and of v, a layer each."""
    by_layer: dict[int | None, dict[str, float | None]] = {}
    for name in evidence.matrices:
        by_layer.setdefault(layer_of(name), {})[role_of(name)] = maps.above_chance(name)
    return [(roles["q"], roles["v"]) for roles in by_layer.values() if {"q", "v"} <= roles.keys()]


def _above(maps: PairMaps, names: Sequence[str], i: int) -> int:
    """Matrices whose φ(i, i) lies further above chance than random subspaces get."""
    found = 0
    for name in names:
        phi, one = maps.at(name, i, i), maps.first.get(name)
        if phi is not None and one is not None:
            found += phi > chance_level(i, i, one.dimension) + _SDS * chance_sd(i, i, one.dimension)
    return found


def _chance(maps: PairMaps, i: int) -> float:
    return median(chance_level(i, i, one.dimension) for one in maps.first.values())


def _control(maps: PairMaps, evidence: Evidence, what: str) -> str:
    i = min(4, evidence.small)
    known = [name for name in maps.first if maps.at(name, i, i) is not None]
    if not known:
        return ""
    return f"The control: of {what} {_above(maps, known, i)} of {len(known)} matrices lie above chance at φ({i}, {i})."


# Amplification


def _amplification(evidence: Evidence) -> Finding:
    claim = "ΔW amplifies directions that are in W but not at its top, and a small rank amplifies them more than a large one."
    title, small, large = "What does ΔW amplify?", evidence.small, evidence.large
    by_rank = {r: _known(evidence.amplifications.get(r, {}).values()) for r in (small, large)}
    if not by_rank[small] or not by_rank[large]:
        return Finding(
            "amplification", title, "Table 7", claim, "cannot be told", "ΔW is zero, or no run is there: it has no direction."
        )
    above = {r: sum(_is_above_random(one) for one in ones) for r, ones in by_rank.items()}
    factors = {r: median(one.factor or 0.0 for one in ones) for r, ones in by_rank.items()}
    shares = {r: median((one.on_delta or 0.0) / one.on_base for one in ones if one.on_base) for r, ones in by_rank.items()}
    in_w = all(above[r] > _MOST * len(by_rank[r]) for r in by_rank)
    wider = factors[small] > factors[large]
    verdict: Verdict = "does not agree" if not in_w else "agrees" if wider and factors[small] > 1 else "agrees in part"
    parts = [
        f"At r = {r} W projected on ΔW's directions is larger than on random ones in {above[r]} of {len(ones)} matrices, and"
        f" {100 * shares[r]:.0f} % of what W has on its own top ones; the median amplification factor is {factors[r]:.1f}."
        for r, ones in by_rank.items()
    ]
    paper = "The paper has 21.5 at r = 4 and 1.9 at r = 64."
    return Finding("amplification", title, "Table 7", claim, verdict, " ".join([*parts, paper]))


def _known(ones: Iterable[Amplification]) -> list[Amplification]:
    return [one for one in ones if one.factor is not None]


def _is_above_random(one: Amplification) -> bool:
    if one.on_delta is None or one.on_random is None or one.on_random_sd is None:
        return False
    return one.on_delta > one.on_random + _SDS * one.on_random_sd
