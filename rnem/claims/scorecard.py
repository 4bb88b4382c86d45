"""From decided comparisons to words and tables: what a claim box says, and the scorecard, one row a claim."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

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
BADGES = {
    "replicated": "success",
    "partly replicated": "warning",
    "inconclusive": "secondary",
    "not replicated": "danger",
    "not tested at this scale": "light",
}
"""Colour of a verdict (sphinx-design)."""
MARKS: dict[Verdict, str] = {
    "replicated": "✓",
    "partly replicated": "◐",
    "inconclusive": "?",
    "not replicated": "✗",
    "not tested at this scale": "–",
}
CAMPAIGNS = {"laptop": "first campaign", "long": "long campaign"}
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
    """One comparison in a line of Markdown: both sides, the ratio, seeds, rule and outcome."""
    c, n = decided.comparison, len(decided.seeds)
    if not n:
        return f"{measure_label(c.measure)}: no seed has a finished run of {_sides(c)}."
    text = f"{measure_label(c.measure)}: {model_label(c.subject)} **{number(decided.subject)}**"
    if decided.reference is not None:
        text += f", {model_label(c.reference)} **{number(decided.reference)}**, ratio {ratio(decided.compared)}"
    return f"{text} (n = {n}; {bound_label(c)}: {decided.outcome}{_what_would_decide(decided)})"


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
    """A claim as each campaign among the runs ``found`` decides it: first those that tested it, the newest first.

    ``settings``: see rnem.claims.measured.measure_with.
    """
    judged = []
    for profile in reversed(dict.fromkeys(name.split("-")[0] for name in found)):
        runs = {name: members for name, members in found.items() if name.split("-")[0] == profile}
        if this := poster.claims(profile).get(claim):
            judged.append(_judged(this, measured.measure_with(runs, **settings), runs, profile))
    return sorted(judged, key=lambda each: not each.tested)  # stable: the newest stays first


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


def judgement(judged: Sequence[Judged], *, also: str = ""):
    """The same, folded, as a referee wants it: the words of the claim, every comparison with its rule, runs, command.

    ``also`` is said after what was measured. Markdown.
    """
    from IPython.display import Markdown

    claim = judged[0].claim
    parts = [f"**Claim** ({claim.source}): {claim.statement} Theirs: {claim.theirs}."]
    for each in judged:
        items = "\n".join(f"- {describe(one)}" for one in each.decided)
        name = campaign(each.profile)
        parts.append(
            f"**{name[0].upper()}{name[1:]}: {each.verdict}.** Rule of {each.claim.written}.\n\n{items}\n\n"
            f"{cells.evidence(each.runs)}"
        )
    minutes = sum(run.manifest["wall_seconds"] for each in judged for run in each.runs) / 60
    parts.append(
        f"`{_command(judged[0].profile, CHAPTERS[claim.id])}` trains what is missing of these runs ({minutes:.0f} "
        "thread-minutes where all are) and makes this page."
    )
    parts.append(
        "Mean ± 95% interval over n seeds, test videos, no evaluation noise. A comparison holds where its whole "
        "interval is on the right side of the bound ({src}`rnem.claims.rules.judge`)."
    )
    text = "\n\n".join([*parts, *[also] * bool(also)])
    return Markdown(f":::{{dropdown}} How this was judged: rules, numbers, runs, command\n{text}\n:::")


def _command(profile: str, chapter: str) -> str:
    """What makes a chapter and its numbers; the long campaign's are in the same book as the first's."""
    return f"rnem reproduce --chapter {chapter}" + f" --profile {profile}" * (profile not in CAMPAIGNS)


def table(
    measure: Callable[[str, Measure], dict[int, float]], found: Mapping[str, list[Run]], profile: str
) -> pd.DataFrame:
    """The scorecard of a profile: a row per claim with what they say, what is measured here, verdict and cost."""
    rows = []
    for claim in poster.claims(profile).values():
        judged = _judged(claim, measure, found, profile)
        rows.append(
            {
                "claim": claim.id,
                "statement": claim.statement,
                "theirs": claim.theirs,
                "ours": [describe(each) for each in judged.decided],
                "outcomes": judged.outcomes,
                "verdict": judged.verdict,
                "profile": profile,
                "chapter": CHAPTERS[claim.id],
                "runs": len(judged.runs),
                "minutes": sum(run.manifest["wall_seconds"] for run in judged.runs) / 60,
            }
        )
    return pd.DataFrame(rows)


def _runs_of(decided: Decided, found: Mapping[str, list[Run]], profile: str) -> list[Run]:
    c = decided.comparison
    names = {measured.run_name(profile, c.measure.data, model) for model in (c.subject, c.reference) if model}
    return [run for name in names for run in found.get(name, []) if run.seed in decided.seeds]


def summary(table: pd.DataFrame) -> str:
    """The verdicts counted, in one line of Markdown."""
    counts = table["verdict"].value_counts()
    return ", ".join(f"**{counts.get(v, 0)}** {v}" for v in Verdict.__args__) + f", of {len(table)} claims."


def outcomes(table: pd.DataFrame) -> str:
    """The outcomes of all comparisons counted, in one line of Markdown."""
    every = [outcome for row in table["outcomes"] for outcome in row]
    counts = ", ".join(_counted(every, outcome) for outcome in Outcome.__args__ if outcome in every)
    return f"Of {len(every)} comparisons: {counts}."


def _counted(outcomes: list[str], outcome: str) -> str:
    """``9 hold``, ``1 is weaker``."""
    n = outcomes.count(outcome)
    if outcome == "holds":
        return f"{n} hold{'s' * (n == 1)}"
    return f"{n} {'is' if n == 1 else 'are'} {outcome}"


def older_reading(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """What the first reading of the first campaign said (see rnem.claims), beside what is said now, claim by claim.

    Columns: claim, the verdict and the failures of then, the verdict and the inconclusive comparisons of now. And a
    sentence: the day, the commit, and what became of the comparisons that were called failures.
    """
    kept = json.loads((verdicts_root() / "first-campaign.json").read_text(encoding="utf-8"))
    now = table.set_index("claim")
    rows, became = [], []
    for claim in kept["claims"]:
        then, outcomes = [c["outcome"] for c in claim["comparisons"]], now.loc[claim["claim"], "outcomes"]
        became += [after for before, after in zip(then, outcomes, strict=True) if before == "fails"]
        rows.append(
            {
                "claim": claim["claim"], "verdict then": claim["verdict"], "failed then": then.count("fails"),
                "verdict now": now.loc[claim["claim"], "verdict"], "inconclusive now": outcomes.count("inconclusive"),
            }
        )  # fmt: skip
    counts = ", ".join(_counted(became, outcome) for outcome in Outcome.__args__ if outcome in became)
    return pd.DataFrame(rows), (
        f"On {kept['date']}, at commit {kept['commit']}, {len(became)} comparisons were called failures; of these "
        f"{counts}."
    )


def markdown(table: pd.DataFrame) -> str:
    """The scorecard as a MyST list table, each claim linked to its chapter."""
    lines = [":::{list-table}", ":header-rows: 1", ":class: scorecard", ":widths: 22 15 43 20", ""]
    lines += _row("claim", "theirs", "ours", "verdict")
    for row in table.to_dict("records"):
        title = f"**[{row['claim']}]({row['chapter']}.ipynb)**"
        ours = _labels_once(row["ours"])
        cost = (
            f"{row['runs']} run{'s' * (row['runs'] > 1)}, {row['minutes']:.0f} minutes" if row["runs"] else "no run yet"
        )
        command = f"`{_command(row['profile'], row['chapter'])}`"
        badge = f"{{bdg-{BADGES[row['verdict']]}}}`{row['verdict']}`"
        lines += _row(
            f"{title}<br>{row['statement']}", row["theirs"], ours, f"{badge}<br>{row['profile']}, {cost}<br>{command}"
        )
    return "\n".join([*lines, ":::"])


def _labels_once(described: list[str]) -> str:
    """Comparisons below each other; what several in a row measure is said once."""
    lines, before = [], None
    for label, _, rest in (text.partition(": ") for text in described):
        lines += [f"*{label}*"] * (label != before) + [rest]
        before = label
    return "<br>".join(lines)


def _row(*cells_: str) -> list[str]:
    return [f"{'*' if not number_ else ' '} - {text}" for number_, text in enumerate(cells_)]


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
