"""The page: a headline, the exam, the funnel, the cost, trainings, samples beside their sources, how to do it again."""

from __future__ import annotations

from collections import Counter
from html import escape
from itertools import islice
from typing import Any

import orjson

from gristmill.core.files import write_text
from gristmill.core.records import Report, Sample
from gristmill.runs.figures import counted, money
from gristmill.runs.folder import Output, RunFolder
from gristmill.runs.repeat import SKIPPED
from gristmill.runs.report import charts
from gristmill.runs.report.costs import cost_table, limits
from gristmill.runs.report.coverage import coverage
from gristmill.runs.report.reports import numbers
from gristmill.runs.report.sheet import section, sheet
from gristmill.runs.report.training import trainings

SHOWN = 12
"""Samples and exam questions on the page; all of them are in the run's folder."""

MEASURED = 5000
"""Samples whose lengths are drawn, spread over all there are."""


def write_report(folder: RunFolder) -> None:
    """`report.html` of a run, from its folder."""
    outputs = folder.outputs()
    summary = orjson.loads((folder.path / "summary.json").read_bytes())
    skipped = {name: outputs.pop(name) for name, output in list(outputs.items()) if SKIPPED in output.meta}
    exams = [report for output in outputs.values() for report in output.only(Report) if _arms(report)]
    parts = [
        _head(folder, summary, exams),
        *(_exam(report) for report in exams),
        coverage(outputs),
        numbers(outputs),
        section("Funnel", charts.funnel([_flow(name, output) for name, output in outputs.items()]) + _skipped(skipped)),
        _drops(outputs),
        section("Cost", cost_table(summary.get("paid", []), outputs)),
        section("Calls in flight", limits(folder)),
        *trainings(folder, outputs),
        *_samples(outputs),
        _again(folder, summary),
    ]
    write_text(folder.path / "report.html", sheet(folder.manifest["name"], parts))


def _head(folder: RunFolder, summary: dict[str, Any], exams: list[Report]) -> str:
    manifest, spent = folder.manifest, summary["spent"]
    cost = f"{spent['calls']:,} model calls, {spent['tokens_in'] + spent['tokens_out']:,} tokens"
    cost += f", {money(spent['usd'])}" if spent.get("usd") else ""
    sub = f"run {manifest['id']} · {manifest['started']} · seed {manifest['seed']} · {cost}"
    headline = _error(summary) if summary["error"] else _missing(summary) + _verdict(exams)
    return f"<header><h1>{escape(manifest['name'])}</h1><p class=sub>{escape(sub)}</p>{headline}</header>"


def _error(summary: dict[str, Any]) -> str:
    return f'<p class="headline bad">{escape(summary["state"])}: {escape(summary["error"])}</p>'


def _missing(summary: dict[str, Any]) -> str:
    """What a run that is not whole still lacks."""
    missing = sum(counts["unreachable"] for counts in summary["funnel"].values())
    said = f"incomplete: {counted(missing, 'record')} could not be asked; the same command asks again"
    return f'<p class="headline bad">{said}</p>' if missing else ""


def _verdict(exams: list[Report]) -> str:
    said = [
        f"<b>{escape(arm)}</b> answered {a['right']} of {a['n']} questions right "
        f"({a['accuracy']:.0%}, 95 % interval {a['low']:.0%} to {a['high']:.0%})"
        for report in exams
        for arm, a in _arms(report).items()
    ]
    return f'<p class="headline">{"; ".join(said)}.</p>' if said else ""


def _arms(report: Report) -> dict[str, Any]:
    arms = report.data.get("arms")
    return arms if isinstance(arms, dict) else {}


def _exam(report: Report) -> str:
    arms = _arms(report)
    bars = [
        charts.Bar(arm, a["accuracy"], a["low"], a["high"], f"{a['right']} of {a['n']}", strong=bool(a.get("tuned")))
        for arm, a in arms.items()
    ]
    tables = "".join(_breakdown(title, arms, key) for title, key in (("document", "documents"), ("kind", "kinds")))
    return section(report.title, charts.intervals(bars) + tables) + _questions(report)


def _breakdown(title: str, arms: dict[str, Any], key: str) -> str:
    names = list(dict.fromkeys(name for a in arms.values() for name in a.get(key, {})))
    if not names:
        return ""
    head = "".join(f"<th class=n>{escape(arm)}</th>" for arm in arms)
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f"<td class=n>{_share(a.get(key, {}).get(name))}</td>" for a in arms.values())
        + "</tr>"
        for name in names
    )
    return f"<div class='scroll breakdown'><table><tr><th>{title}</th>{head}</tr>{rows}</table></div>"


def _share(part: dict[str, Any] | None) -> str:
    return f"{part['right']}/{part['n']}" if part else ""


def _questions(report: Report) -> str:
    asked = report.data.get("questions")
    if not isinstance(asked, list) or not asked:
        return ""
    arms = list(_arms(report))
    head = "".join(f"<th>{escape(name)}</th>" for name in ("question", "right answer", *arms))
    rows = "".join(_question(q, arms) for q in asked[: SHOWN * 2] if isinstance(q, dict))
    return section("What they answered", f"<div class='scroll answers'><table><tr>{head}</tr>{rows}</table></div>")


def _question(q: dict[str, Any], arms: list[str]) -> str:
    cells = "".join(_given(q["arms"].get(arm)) for arm in arms)
    return f"<tr><td>{escape(q['question'])}</td><td>{escape(' / '.join(q['answers']))}</td>{cells}</tr>"


def _given(answer: dict[str, Any] | None) -> str:
    if answer is None:
        return "<td></td>"
    return f'<td class="{"right" if answer["value"] == 1 else "wrong"}">{escape(_short(answer["answer"]))}</td>'


def _short(text: str, most: int = 160) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _flow(name: str, output: Output) -> charts.Flow:
    counts = output.meta["counts"]
    why = {**counts["rejected"], **counts["failed"]}
    if counts["unreachable"]:
        why["could not be asked"] = counts["unreachable"]
    said = ", ".join(f"{reason} {n}" for reason, n in sorted(why.items(), key=lambda item: -item[1]))
    return charts.Flow(name, counts["taken"], counts["given"], sum(why.values()), said)


def _skipped(outputs: dict[str, Output]) -> str:
    """Stages of rounds that were not needed."""
    said = [f"{name}: {output.meta[SKIPPED]}" for name, output in outputs.items()]
    return f"<p class=sub>Not needed: {escape('; '.join(said))}.</p>" if said else ""


def _drops(outputs: dict[str, Output]) -> str:
    """Reasons of the stages themselves, dead letters with the words of whoever refused, and what may yet be asked."""
    rows = []
    for name, output in outputs.items():
        counts = output.meta["counts"]
        waiting = {"could not be asked": counts["unreachable"]} if counts["unreachable"] else {}
        failed = _dead_letters(output) if counts["failed"] else {}
        for what, reasons in (("rejected", counts["rejected"]), ("failed", failed), ("waiting", waiting)):
            rows += [
                f"<tr><td>{escape(name)}</td><td>{what}</td><td>{escape(reason)}</td><td class=n>{n}</td></tr>"
                for reason, n in sorted(reasons.items(), key=lambda item: -item[1])
            ]
    head = "<tr><th>stage</th><th>what became of it</th><th>reason</th><th class=n>records</th></tr>"
    return section("Dropped, and why", f"<div class=scroll><table>{head}{''.join(rows)}</table></div>" if rows else "")


def _dead_letters(output: Output) -> dict[str, int]:
    """The commonest words of those who refused a record, and how many others there are."""
    words = Counter(row["detail"] for row in output.rejects() if row["status"] == "failed")
    common = words.most_common(SHOWN)
    others = words.total() - sum(n for _, n in common)
    return {_short(said, 300): n for said, n in common} | ({"(other reasons)": others} if others else {})


def _samples(outputs: dict[str, Output]) -> list[str]:
    """Lengths and a spread of samples of the last stage that gave any."""
    writing = [o for o in outputs.values() if o.meta["kind"].startswith(("generate.", "curate."))]
    giving = [o for o in writing if any(True for _ in o.only(Sample, most=1))]
    if not giving:
        return []
    words: list[int] = []
    quoted: list[Sample] = []
    for sample in giving[-1].only(Sample, most=MEASURED):  # one by one: they may be books
        words.append(len((sample.text or " ".join(m.content for m in sample.messages)).split()))
        quoted += [sample] if sample.quotes else []
    spread = islice(quoted[:: max(1, len(quoted) // SHOWN)], SHOWN)
    return [
        section("Sample lengths", charts.histogram(words, name="words")),
        section("Samples beside their sources", "".join(_pair(s) for s in spread)),
    ]


def _pair(sample: Sample) -> str:
    quote = sample.quotes[0]
    pages = f", page {quote.pages[0]}" if quote.pages else ""
    said = f"<p>{escape(sample.question)}</p><p><b>{escape(sample.answer[:600])}</b></p>"
    return (
        f"<div class=pair><div>{said if sample.messages else f'<p>{escape(sample.text[:600])}</p>'}"
        f"<small>{escape(sample.kind)} · {sample.id}</small></div>"
        f"<blockquote>{escape(quote.text[:600])}<br><small>{escape(quote.path)}{pages}, "
        f"characters {quote.start} to {quote.end}</small></blockquote></div>"
    )


def _again(folder: RunFolder, summary: dict[str, Any]) -> str:
    manifest = folder.manifest
    recipe = (folder.path / "recipe.yaml").read_text("utf-8")
    facts = {k: manifest[k] for k in ("models", "inputs", "prompts", "prices", "attempts") if k in manifest}
    spent = orjson.dumps({"state": summary["state"], **facts}, option=orjson.OPT_INDENT_2).decode()
    return section(
        "How to do it again",
        f"<pre>{escape(recipe)}</pre><details><summary>what it ran on</summary><pre>{escape(spent)}</pre></details>",
    )
