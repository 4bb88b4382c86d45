"""From decided comparisons to words and tables: what a claim box says, and the scorecard, one row a claim."""

from __future__ import annotations

import html
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rnem.book import cells
from rnem.claims import measured, poster, rules
from rnem.claims.findings import Measuring, finding, with_seeds
from rnem.claims.rules import Claim, Comparison, Decided, Measure, Outcome, Verdict
from rnem.evaluation.metrics import interval, ratio_interval
from rnem.evaluation.quantities import QUANTITIES
from rnem.model.config import model_label
from rnem.paths import verdicts_root
from rnem.runs.config import RunConfig
from rnem.runs.files import replace_file
from rnem.runs.store import Run

DATA = {
    "balls4mass": "four balls",
    "balls678mass": "6–8 balls, K = 8",
    "balls3curtain": "three balls and a curtain",
    "spaceinvaders": "Space Invaders",
}
_IMAGINED = ", rollout step {first} after {real_steps} true frames, by the better feedback"
WHERE = {
    "identity": "",
    "sequences": " until the final loss of {until} is reached",
    "late_sequences": " until the final BCE of {until} is reached, last 10 validation frames",
    "attention_rise": ", {data}",
    "imagined_wrong": _IMAGINED,
    "imagined_near": _IMAGINED,
}
"""On what a quantity is measured, where that is not said by data and frames alone."""
CHAPTERS = {
    "accuracy": "accuracy", "relational": "relational", "components": "components", "grouping": "grouping",
    "extrapolation": "extrapolation", "attention": "attention", "simulation": "rollouts", "efficiency": "efficiency",
    "identity": "model", "occlusion": "occlusion", "atari": "space_invaders",
}  # fmt: skip
"""Claim -> the chapter that shows it."""
SHORT = {
    "accuracy": "Predicts bouncing balls better",
    "relational": "Interaction lowers the relational loss",
    "components": "More components, better grouping",
    "grouping": "One component follows one object",
    "extrapolation": "Works on six to eight balls",
    "attention": "Needs attention, most with many balls",
    "occlusion": "Keeps a ball behind a curtain",
    "simulation": "Imagines longer than the others",
    "atari": "Predicts and groups Space Invaders",
    "efficiency": "Learns from fewer sequences",
    "identity": "Without interaction it is N‑EM",
}
"""Each claim in at most six words."""
MARKS: dict[Verdict, str] = {
    "replicated": "✓",
    "partly replicated": "◐",
    "inconclusive": "?",
    "not replicated": "✗",
    "not tested at this scale": "–",
}
CAMPAIGNS = {"laptop": "first campaign", "long": "long campaign", "paper": "authors’ size"}
"""Profile -> what its runs are called together."""


def number(values: Iterable[float]) -> str:
    """Mean ± half width of the 95% interval over seeds, to sensible digits."""
    values = list(values)
    if any(map(math.isinf, values)):
        return "never"
    mean, half = interval(values)
    if math.isnan(mean):
        return "–"
    if abs(mean) < 1e-4:
        return f"{mean:.0e}" if mean else "0"
    digits = 0 if abs(mean) >= 1000 else 1 if abs(mean) >= 20 else 2
    return f"{mean:,.{digits}f}" + (f" ± {half:,.{digits}f}" if math.isfinite(half) else "")


def ratio(values: Iterable[float]) -> str:
    """Geometric mean of ratios and the 95% interval of their logarithm: ``0.92 (0.86 to 0.98)``."""
    values = list(values)
    if len(values) > 1 and all(0 < value < math.inf for value in values):
        mean, low, high = ratio_interval(values)
        return f"{mean:.2f} ({low:.2f} to {high:.2f})"
    return number(values)


def measure_label(measure: Measure) -> str:
    """What is measured, in a few words."""
    first, last, real_steps = measure.first, measure.last, measure.real_steps
    where = ", {data}, {span}" if real_steps is None else ", rollout step {step} after {real_steps} true frames"
    return QUANTITIES[measure.quantity].label + WHERE.get(measure.quantity, where).format(
        data=DATA[measure.data],
        span=f"frame {first}" if first == last else f"frames {first}–{last}",
        until=measure.until and model_label(measure.until),
        first=first,
        step=first - (real_steps or 0),
        real_steps=real_steps,
    )


def bound_label(comparison: Comparison) -> str:
    """What the rule asks for: ``ratio < 0.8``."""
    sign = "<" if comparison.better == "lower" else ">"
    return f"{'ratio' if comparison.reference else 'value'} {sign} {comparison.bound:g}"


def describe(decided: Decided) -> str:
    """One comparison in a line of HTML: both sides, the ratio, seeds, rule and outcome."""
    c, n = decided.comparison, len(decided.seeds)
    if not n:
        return f"{measure_label(c.measure)}: no seed has a finished run of {_sides(c)}."
    text = f"{measure_label(c.measure)}: {model_label(c.subject)} <b>{number(decided.subject)}</b>"
    if decided.reference is not None:
        text += f", {model_label(c.reference)} <b>{number(decided.reference)}</b>, ratio {ratio(decided.compared)}"
    return f"{text} (n = {n}; {html.escape(bound_label(c))}: {decided.outcome}{_what_would_decide(decided)})"


def _what_would_decide(decided: Decided) -> str:
    """Of an inconclusive comparison: the number of seeds that would decide it."""
    if decided.outcome != "inconclusive":
        return ""
    seeds = decided.seeds_to_decide
    if seeds is None:
        return f", and more than {rules.MOST_SEEDS} seeds would be needed: at this training the two are equal"
    return f", {seeds} seeds would decide it" if seeds > len(decided.seeds) else ""


def _sides(comparison: Comparison) -> str:
    return " and ".join(model_label(model) for model in (comparison.subject, comparison.reference) if model)


@dataclass(frozen=True)
class Judged:
    """A claim as the finished runs of one campaign decide it."""

    claim: Claim
    profile: str
    decided: list[Decided]
    runs: list[Run]
    """Those that the comparisons used."""
    finding: str
    """What was found, in one sentence; "" where no run can say it, or too few seeds of the later campaign."""

    @property
    def outcomes(self) -> list[Outcome]:
        return [each.outcome for each in self.decided]

    @property
    def verdict(self) -> Verdict:
        return rules.verdict(self.outcomes)

    @property
    def tested(self) -> bool:
        return not self.verdict.startswith("not tested")


def judge(claim: str, found: Mapping[str, list[Run]], **settings) -> list[Judged]:
    """A claim as each campaign among the runs ``found`` decides it: first those that tested it, the newest first, and
    then those that have runs of it.

    ``settings``: see rnem.claims.measured.measure_with.
    """
    judged = []
    for profile in reversed(dict.fromkeys(name.split("-")[0] for name in found)):
        runs = {name: members for name, members in found.items() if name.split("-")[0] == profile}
        if this := poster.claims(profile).get(claim):
            judged.append(_judged(this, measured.measure_with(runs, **settings), runs, profile))
    return sorted(judged, key=lambda each: (not each.tested, not each.runs))  # stable: the newest stays first


Card = Mapping[str, Sequence[Judged]]
"""Claim -> how each campaign decides it, the last that tested it first: the scorecard, in the book's order."""


def card(found: Mapping[str, list[Run]], profile: str, **settings) -> dict[str, list[Judged]]:
    """The scorecard of finished runs; a claim that none of them is about is one that ``profile`` did not test."""
    shown = {f"{profile}-balls4mass-rnem-k5": []} | dict(found)
    return {claim: judge(claim, shown, **settings) for claim in poster.FIRST}


def standing(card: Card) -> list[Judged]:
    """Each claim by the last campaign that tested it."""
    return [judged[0] for judged in card.values()]


def _judged(claim: Claim, measure: Measuring, runs: Mapping[str, list[Run]], profile: str) -> Judged:
    decided = rules.decide(claim, measure)
    used = {run.path: run for each in decided for run in _runs_of(each, runs, profile)}
    asked = with_seeds(measure) if profile == cells.LATER else measure
    return Judged(claim, profile, decided, list(used.values()), finding(claim.id, asked))


def opening(judged: Sequence[Judged]):
    """The first lines of a claim's page: the verdict of each campaign, and what the first of them found."""
    from IPython.display import HTML

    newest = sorted(judged, key=lambda each: each.profile != cells.LATER)
    verdicts = "".join(
        f'<span class="verdict {style_of(each.verdict)}"><span aria-hidden="true">{MARKS[each.verdict]}</span> '
        f'{html.escape(each.verdict)}</span> <span class="campaign">{campaign(each.profile)}</span> '
        for each in newest
    )
    said = next((each for each in newest if each.finding), judged[0])
    of = f' <span class="campaign">({campaign(said.profile)})</span>' if len(judged) > 1 else ""
    return HTML(
        f'<div class="opening"><p class="verdicts">{verdicts}</p><p class="finding">{said.finding}{of}</p></div>'
    )


def style_of(verdict: Verdict) -> str:
    """The CSS class that gives a verdict its colour."""
    return "untested" if verdict.startswith("not tested") else verdict.split()[0]


def campaign(profile: str) -> str:
    """What a profile's runs are called: the laptop's are the first campaign."""
    return CAMPAIGNS.get(profile, f"profile {profile}")


def command(profile: str, chapter: str) -> str:
    """What makes a chapter and its numbers; the long campaign's are in the same book as the first's."""
    return f"rnem reproduce --chapter {chapter}" + f" --profile {profile}" * (profile not in ("laptop", cells.LATER))


def _runs_of(decided: Decided, found: Mapping[str, list[Run]], profile: str) -> list[Run]:
    c = decided.comparison
    names = {measured.run_name(profile, c.measure.data, model) for model in (c.subject, c.reference) if model}
    return [run for name in names for run in found.get(name, []) if run.seed in decided.seeds]


def counted(verdicts: Iterable[Verdict]) -> str:
    """How often each verdict was given: ``6 replicated, 3 inconclusive``."""
    given = list(verdicts)
    return ", ".join(f"{given.count(verdict)} {word(verdict)}" for verdict in MARKS if verdict in given)


def word(verdict: Verdict) -> str:
    return "not tested" if verdict.startswith("not tested") else verdict


def outcomes(judged: Sequence[Outcome]) -> str:
    """Outcomes counted: ``3 hold, 1 is opposite``."""
    return ", ".join(_counted(judged, outcome) for outcome in Outcome.__args__ if outcome in judged)


def _counted(outcomes: Sequence[Outcome], outcome: Outcome) -> str:
    """``9 hold``, ``1 is weaker``."""
    n = outcomes.count(outcome)
    if outcome == "holds":
        return f"{n} hold{'s' * (n == 1)}"
    return f"{n} {'is' if n == 1 else 'are'} {outcome}"


def older_reading(card: Card) -> tuple[pd.DataFrame, str]:
    """What the first reading of the first campaign said (see rnem.claims), beside what is said now, claim by claim.

    Columns: claim, the verdict and the failures of then, the verdict and the inconclusive comparisons of now. And a
    sentence: the day, the commit, and what became of the comparisons that were called failures.
    """
    kept = json.loads((verdicts_root() / "first-campaign.json").read_text(encoding="utf-8"))
    now = {claim: each for claim, judged in card.items() for each in judged if each.profile == "laptop"}
    rows, became = [], []
    for claim in kept["claims"]:
        then, judged = [c["outcome"] for c in claim["comparisons"]], now[claim["claim"]]
        became += [after for before, after in zip(then, judged.outcomes, strict=True) if before == "fails"]
        rows.append(
            {
                "claim": claim["claim"], "verdict then": claim["verdict"], "failed then": then.count("fails"),
                "verdict now": judged.verdict, "inconclusive now": judged.outcomes.count("inconclusive"),
            }
        )  # fmt: skip
    return pd.DataFrame(rows), (
        f"On {kept['date']}, at commit {kept['commit']}, {len(became)} comparisons were called failures; of these "
        f"{outcomes(became)}."
    )


def progress(wanted: Iterable[RunConfig], found: Mapping[str, list[Run]]) -> pd.DataFrame:
    """Per named run of a campaign: finished seeds of those wanted, updates, minutes so far."""
    rows: dict[str, dict] = {}
    finished = {(run.config.name, run.seed): run for runs in found.values() for run in runs}
    for config in wanted:
        row = rows.setdefault(
            config.name,
            {"run": config.name, "updates": config.training.updates, "seeds": "", "missing": "", "thread-minutes": 0.0},
        )
        run = finished.get((config.name, config.seed))
        row["seeds" if run else "missing"] += f" {config.seed}"
        row["thread-minutes"] += run.manifest["wall_seconds"] / 60 if run else 0.0
    return pd.DataFrame(rows.values())


# --------------------------------------------------------------------------------------------------------------- files

SCHEMA = {
    "claim": "its id; with campaign, subject, reference and measure it names a row",
    "statement": "what the authors say",
    "source": "where they say it",
    "theirs": "the number that they give, in words",
    "campaign": "profile of the runs: laptop (the first campaign), long, paper or smoke",
    "verdict": "of the claim, by the runs of this campaign",
    "stands": "true where that is the scorecard's verdict: of the last campaign that tested the claim",
    "rule_written": "the day on which the rule was committed, before any run that it judges",
    "finding": "what was found about the claim, in a sentence",
    "runs": "finished runs that the claim's comparisons use",
    "minutes": "of training, of all these runs together",
    "measure": "what is compared, in words",
    "subject": "model, as in the names of runs",
    "reference": "the model that it is held against; none where a constant is",
    "better": "lower or higher",
    "bound": "of the ratio subject/reference, or of the subject alone",
    "authors": "what the authors' own numbers give for that",
    "seeds": "those that both sides have",
    "subject_values": "one a seed",
    "reference_values": "one a seed",
    "compared": "one a seed: what is held against the bound",
    "outcome": "holds, weaker, opposite, inconclusive or untested",
    "seeds_to_decide": "of an inconclusive comparison: how many seeds would decide it; none: more than 100",
}
"""Field of a row of scorecard.json and scorecard.csv -> what it says."""


def records(card: Card) -> list[dict]:
    """A row per claim, campaign and comparison, with the fields of SCHEMA, as JSON has them.

    Numbers have six digits; those that are not finite are words, ``inf`` and ``nan``.
    """
    return [
        dict(
            zip(
                SCHEMA,
                (
                    judged.claim.id, judged.claim.statement, judged.claim.source, judged.claim.theirs, judged.profile,
                    judged.verdict, judged is every[0], judged.claim.written, plain(judged.finding), len(judged.runs),
                    round(minutes(judged)), measure_label(each.comparison.measure), each.comparison.subject,
                    each.comparison.reference, each.comparison.better, each.comparison.bound,
                    each.comparison.authors and _digits(each.comparison.authors), list(each.seeds),
                    *(None if side is None else [_digits(value) for value in side]
                      for side in (each.subject, each.reference, each.compared)),
                    each.outcome, each.seeds_to_decide if each.outcome == "inconclusive" else None,
                ),
                strict=True,
            )
        )
        for every in card.values()
        for judged in every
        for each in judged.decided
    ]  # fmt: skip


def _digits(value: float) -> float | str:
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)


def plain(sentence: str) -> str:
    """A sentence without its markup."""
    return html.unescape(re.sub("<[^>]+>", "", sentence))


def minutes(judged: Judged) -> float:
    """Minutes of training of the runs that a claim's comparisons use."""
    return sum(run.manifest["wall_seconds"] for run in judged.runs) / 60


def write(card: Card, folder: Path | str | None = None) -> None:
    """Write scorecard.json (``schema``, ``comparisons``), the same rows as scorecard.csv, and the badge, scorecard.svg.

    In the CSV a list is its values with spaces between them, and what is none is empty. As with rnem.figures.save,
    nothing is written where there is neither ``folder`` nor $RNEM_FIGURES.
    """
    if not (folder := folder or os.environ.get("RNEM_FIGURES")):
        return
    rows, chapter, verdicts = records(card), os.environ.get("RNEM_CHAPTER"), [each.verdict for each in standing(card)]
    tree = {
        "files": ["scorecard.csv", "scorecard.json", "scorecard.svg"],
        "chapter": chapter,
        "command": f"rnem chapter {chapter}",
        "alt": f"claims: {counted(verdicts)}",
        "schema": SCHEMA,
        "comparisons": rows,
    }
    flat = [
        {name: " ".join(map(str, value)) if isinstance(value, list) else value for name, value in row.items()}
        for row in rows
    ]
    text = f"{json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False)}\n"
    replace_file(Path(folder) / "scorecard.json", text.encode())
    replace_file(Path(folder) / "scorecard.csv", pd.DataFrame(flat, columns=[*SCHEMA]).to_csv(index=False).encode())
    replace_file(Path(folder) / "scorecard.svg", badge(verdicts))


def badge(verdicts: Iterable[Verdict]) -> bytes:
    """The verdicts counted, as an SVG of 20 pixels' height for the README."""
    text = counted(verdicts)
    left, right = (6.2 * len(part) + 14 for part in ("claims", text))
    words = "".join(
        f'<text x="{middle:.1f}" y="14" textLength="{length - 12:.1f}">{part}</text>'
        for part, middle, length in (("claims", left / 2, left), (text, left + right / 2, right))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right:.0f}" height="20" role="img" '
        f'aria-label="claims: {text}"><rect width="{left:.1f}" height="20" fill="#444c56"/>'
        f'<rect x="{left:.1f}" width="{right:.1f}" height="20" fill="#08704a"/>'
        f'<g fill="#fff" text-anchor="middle" font-family="Verdana,sans-serif" font-size="11">{words}</g></svg>\n'
    ).encode()
