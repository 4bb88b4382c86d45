"""The scorecard as HTML: a row a claim, each with one forest plot, that opens to everything behind its verdict."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence

from rnem.claims import measured, poster, scorecard
from rnem.claims.rules import MINIMUM_SEEDS, MOST_SEEDS, Decided, Verdict
from rnem.claims.scorecard import Card, Judged, campaign, outcomes
from rnem.figures import forest
from rnem.model.config import model_label
from rnem.runs.experiments import SIZE
from rnem.runs.store import Run

BETTER, WORSE = "R-NEM is better", "R-NEM is worse"
LEGEND = {
    "dot": "seed",
    "bar": "mean of ratios to another model or a constant",
    "bound": "bound asked for",
    "authors": "authors’ number, recalled",
    "other": "another campaign",
}
"""Class of what pictures are made of -> what it is."""


def page(card: Card) -> str:
    """The verdicts counted, what the pictures show, and a row a claim."""
    judged = scorecard.standing(card)
    every = [outcome for each in judged for outcome in each.outcomes]
    heads = (
        "verdict",
        "claim",
        forest.axis(BETTER, WORSE),
        "<small>theirs</small>ours",
        "what was found <small>a row opens to its evidence</small>",
    )
    head = "".join(f"<span>{cell}</span>" for cell in heads)
    keys = "".join(f'<span class="key"><i class="key-{name}"></i>{what}</span>' for name, what in LEGEND.items())
    return (
        f'<div class="scorecard"><p class="scorecard-count"><b>{len(card)} claims: '
        f"{scorecard.counted(each.verdict for each in judged)}.</b> {len(every)} comparisons: {outcomes(every)}.</p>"
        f'<div class="scorecard-head">{head}</div>{"".join(map(row, card.values()))}'
        f'<p class="scorecard-legend">{keys}</p></div>'
    )


def row(judged: Sequence[Judged]) -> str:
    """A claim: what one sees of it, and, when it is opened, all that is behind it."""
    this = judged[0]
    claim, seeds = this.claim, [len(each.seeds) for each in this.decided]
    held = this.outcomes.count("holds")
    cells = {
        "verdict": f"{mark(this.verdict)}<small>{campaign(this.profile)}</small>",
        "name": html.escape(scorecard.SHORT[claim.id]),
        "plot": picture(judged),
        "sides": f"<small>{html.escape(claim.theirs)}</small>"
        f"<span><b>{held} of {len(seeds)}</b> hold{'s' * (held == 1)}, {min(seeds)} seeds</span>",
        "found": this.finding or "No finished run says anything about it yet.",
    }
    body = "".join(f'<span class="claim-{name}">{cell}</span>' for name, cell in cells.items())
    # The link lies over its name in the summary: a control inside another one is none for a screen reader.
    return (
        f'<div class="claim {scorecard.style_of(this.verdict)}" id="{claim.id}">'
        f'<a class="claim-link" href="{scorecard.CHAPTERS[claim.id]}.html">{cells["name"]}</a>'
        f'<details><summary>{body}</summary><div class="claim-more">{behind(judged)}</div></details></div>'
    )


def mark(verdict: Verdict) -> str:
    sign = f'<span aria-hidden="true">{scorecard.MARKS[verdict]}</span>'
    return f'<b class="verdict-mark">{sign} {scorecard.word(verdict)}</b>'


# ------------------------------------------------------------------------------------------------------------- pictures


def picture(judged: Sequence[Judged]) -> str:
    """The comparisons of the campaign whose verdict stands, and below them, thin and grey, those of the others."""
    this = judged[0]
    lines = [line(each) for each in this.decided]
    for other in judged[1:]:
        lines += [line(each, "other", 0.5, campaign(other.profile)) for each in other.decided if each.seeds]
    means = [f"{forest.mean(each.values):.2g} ({each.kind})" for each in lines if each.values and each.kind != "other"]
    said = f"{scorecard.SHORT[this.claim.id]}: {outcomes(this.outcomes)}. "
    return forest.forest(lines, label=f"{said}Ratios, below 1 is better: {', '.join(means) or 'none'}.")


def line(decided: Decided, kind: str = "", share: float = 1.0, of: str = "") -> forest.Line:
    """A comparison as the picture has it: turned so that less is better."""
    c = decided.comparison
    return forest.Line(
        [c.oriented(value) for value in decided.compared],
        kind or decided.outcome,
        c.oriented(c.bound),
        None if c.authors is None or kind else c.oriented(c.authors),
        f"{of}{of and ': '}{scorecard.plain(scorecard.describe(decided))}",
        share,
    )


# ----------------------------------------------------------------------------------------------------- behind a verdict


def behind(judged: Sequence[Judged]) -> str:
    """The words of the claim, every comparison at every budget, what would change the verdict, runs and command."""
    claim = judged[0].claim
    parts = [
        f"<p>“{html.escape(claim.statement)}” ({html.escape(claim.source)}). Theirs: {html.escape(claim.theirs)}.</p>",
        f"<p><b>What would change the verdict</b></p><ul>{_items(would_change(judged[0]))}</ul>",
    ]
    for each in judged:
        said = f"<b>{campaign(each.profile).capitalize()}</b>: {mark(each.verdict)}, rule of {each.claim.written}."
        if not each.runs:
            parts.append(f"<p>{said} Nothing to compare yet.</p>")
            continue
        comparisons = [
            f"{forest.forest([line(one)], label=scorecard.plain(scorecard.describe(one)), height=16)}"
            f"<span>{scorecard.describe(one)}</span>"
            for one in each.decided
        ]
        parts.append(
            f"<p>{said} {each.finding} {evidence(each.runs)}</p>"
            f'<ul class="claim-comparisons">{_items([forest.axis(BETTER, WORSE), *comparisons])}</ul>'
        )
    commands = {scorecard.command(profile, scorecard.CHAPTERS[claim.id]) for profile in (judged[0].profile, "paper")}
    ways = " or, at the authors’ size, ".join(f"<code>{each}</code>" for each in sorted(commands))
    minutes = sum(map(scorecard.minutes, judged))
    return (
        "".join(parts) + f"<p>This claim alone, and its page: {ways}; {minutes:,.0f} thread-minutes from nothing.</p>"
    )


def evidence(runs: Sequence[Run]) -> str:
    """Number of runs and seeds, minutes, threads, hardware, commit; versions of the code, if several; HTML."""
    minutes = [run.manifest["wall_seconds"] / 60 for run in runs]
    each = " to ".join(dict.fromkeys(f"{bound:.0f}" for bound in (min(minutes), max(minutes))))
    seeds, dirty = len({run.seed for run in runs}), sum(bool(run.manifest["dirty"]) for run in runs)
    digests = {digest for run in runs for digest in run.manifest.get("code_digests", [run.manifest["code_digest"]])}
    hardware, threads, commits = (
        html.escape(", ".join(dict.fromkeys(str(run.manifest[fact])[:length] for run in runs)))
        for fact, length in (("hardware", None), ("threads", None), ("commit", 8))
    )
    return (
        f"{len(runs)} run{'s' * (len(runs) > 1)} ({seeds} seed{'s' * (seeds > 1)}), {each} minutes each and "
        f"{sum(minutes):,.0f} together on {threads} thread(s) of {hardware}, commit {commits}"
        + f"; {len(digests)} versions of the training code" * (len(digests) > 1)
        + f"; {dirty} of the runs with uncommitted changes" * (dirty > 0)
        + "."
    )


def judgement(judged: Sequence[Judged], *, also: str = ""):
    """What is :func:`behind` a verdict, folded, for the claim's own page, with ``also`` after it. Markdown."""
    from IPython.display import Markdown

    parts = [
        f'<div class="claim-more">{behind(judged)}</div>',
        "Mean ± 95% interval over n seeds, test videos, no evaluation noise. A comparison holds where its whole "
        "interval is on the right side of the bound ({src}`rnem.claims.rules.judge`).",
        *[also] * bool(also),
    ]
    text = "\n\n".join(parts)
    return Markdown(f":::{{dropdown}} How this was judged: rules, numbers, runs, command\n{text}\n:::")


def would_change(judged: Judged) -> list[str]:
    """Sentences: what each comparison that does not hold lacks; where all hold, how near its bound the nearest is."""
    if judged.verdict == "replicated":
        nearest = max(judged.decided, key=_of_bound)
        share = 100 * (1 - _of_bound(nearest))
        return [f"A comparison that fails. The nearest to its bound is {share:.0f} % from it: {_named(nearest)}."]
    return [f"{_named(each)}: {_lacks(each)}." for each in judged.decided if each.outcome != "holds"]


def _lacks(decided: Decided) -> str:
    if decided.outcome == "untested":
        return f"{len(decided.seeds)} of {MINIMUM_SEEDS} seeds are finished"
    if decided.outcome == "inconclusive":
        needed = decided.seeds_to_decide
        return f"{needed or f'more than {MOST_SEEDS}'} seeds would decide it, if mean and spread stay as they are"
    off = _of_bound(decided)
    by = f"by {100 * (off - 1):.0f} %" if off < 2 else f"by a factor of {off:.1f}" if math.isfinite(off) else "by far"
    return f"{decided.outcome}, its mean misses the bound {by}"


def _of_bound(decided: Decided) -> float:
    """The mean as a share of the bound: below 1 it is on the right side."""
    c = decided.comparison
    return forest.mean([c.oriented(value) for value in decided.compared]) / c.oriented(c.bound)


def _named(decided: Decided) -> str:
    c = decided.comparison
    against = f" against {model_label(c.reference)}" if c.reference else ""
    text = f"{scorecard.measure_label(c.measure)}{against} ({scorecard.bound_label(c)})"
    return html.escape(text[0].upper() + text[1:])


def _items(parts: Iterable[str]) -> str:
    return "".join(f"<li>{part}</li>" for part in parts)


# ---------------------------------------------------------------------------------------------------------------- sizes


def sizes(card: Card, profiles: Iterable[str], found: Mapping[str, list[Run]]) -> str:
    """A table claim × campaign, with its size: tested, begun or never run; and finished runs that no rule asks for."""
    profiles = list(profiles)
    head = "".join(f"<th>{campaign(each)}, {SIZE[each]} × {SIZE[each]}</th>" for each in profiles)
    body = "".join(
        f"<tr><th>{html.escape(scorecard.SHORT[claim])}</th>"
        + "".join(f"<td>{_tested(claim, profile, judged, found)}</td>" for profile in profiles)
        + "</tr>"
        for claim, judged in card.items()
    )
    asked = {name for profile in profiles for claim in poster.claims(profile) for name in _names(claim, profile)}
    beside = [(name, len(runs)) for name, runs in found.items() if name.startswith("paper-") and name not in asked]
    more = ", ".join(f"<code>{name}</code> ({n} seed{'s' * (n > 1)})" for name, n in beside)
    note = f"<p>Finished at the authors’ size, and asked for by no claim’s rule: {more}.</p>" if more else ""
    return f"<table><thead><tr><th>claim</th>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def _names(claim: str, profile: str) -> set[str]:
    """The runs that a claim compares."""
    comparisons = poster.claims(profile)[claim].comparisons
    models = {(c.measure.data, model) for c in comparisons for model in (c.subject, c.reference) if model}
    return {measured.run_name(profile, data, model) for data, model in models}


def _tested(claim: str, profile: str, judged: Sequence[Judged], found: Mapping[str, list[Run]]) -> str:
    if claim not in poster.claims(profile):
        return "no rule of its own"
    runs = sum(len(found.get(name, [])) for name in _names(claim, profile))
    this = next((each for each in judged if each.profile == profile and each.tested), None)
    if this:
        return f"{mark(this.verdict)}, {len(this.runs)} runs"
    return f"begun: {runs} run{'s' * (runs > 1)}" if runs else "never run"
