"""The generation engine beside other engines, in one interleaved run: `make bench-engine`.

Every gate of the acceptance list with its figure and PASS or FAIL, on the terminal and in RESULTS.md, where each part
(speed, wide, resume, faults) has its own section. A ratio counts only within one part, whose engines take turns.
REPS=1 takes a third of the time; ONLY="speed faults" runs these parts and leaves the sections of the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.first_call import cpu_before_first_call
from bench.machine import machine
from bench.peers import Record, drive, install, versions
from bench.table import keep, table

US = "gristmill"
PEERS = "raw_aiohttp,ref_journal,openai_sdk,curator_llm"
ORDER = [US, *PEERS.split(",")]
REPS = os.environ.get("REPS", "3")
PARTS = os.environ.get("ONLY", "speed wide resume faults").split()
TRANSIENT = ("p429=0.1", "p500=0.1", "phang=0.02", "pbadjson=0.05")
POISON = "poison=0.01"
ALL = ",".join([*TRANSIENT, POISON])


@dataclass(frozen=True)
class Gate:
    """One line of the acceptance list."""

    what: str
    bound: str
    figure: str
    passed: bool


def at_most(what: str, figure: float | None, bound: float, unit: str = "") -> Gate:
    shown = "not measured" if figure is None else f"{figure:.3g}{unit}"
    return Gate(what, f"≤ {bound:g}{unit}", shown, figure is not None and figure <= bound)


def exactly(what: str, figure: Any, bound: Any) -> Gate:
    return Gate(what, str(bound), str(figure), figure == bound)


def summaries(records: list[Record], **wanted: Any) -> dict[str, Record]:
    """Engine -> its summary, of the point or fault that is meant."""
    found = [r for r in records if r["mode"] == "summary" and r.items() >= wanted.items()]
    return {r["peer"]: r for r in found}


def ratio(found: dict[str, Record], field: str, peer: str) -> float | None:
    ours, theirs = (found.get(name, {}).get(field) for name in (US, peer))
    return ours / theirs if ours is not None and theirs else None


def speed() -> tuple[list[Record], list[Gate]]:
    records = drive("speed", "--points", "64:50:300,64:50:3000", "--reps", REPS, peers=PEERS)
    found = summaries(records)
    ours = found.get(US, {})
    return records, [
        at_most("CPU per call / raw_aiohttp (target 1.5)", ours.get("x_raw_aiohttp"), 3, " ×"),
        at_most("CPU per call / curator", ratio(found, "cpu_ms_per_call", "curator_llm"), 0.25, " ×"),
        at_most("CPU before the first call (median of 5)", cpu_before_first_call(), 0.8, " s"),
        lossless("rows at 64:50:3000", ours),
    ]


def lossless(what: str, summary: Record) -> Gate:
    found = [summary.get(name) for name in ("lost", "repeated", "wrong", "failed")]
    return exactly(f"{what}: lost, calls repeated, wrong, runs that gave up", found, [0, 0, 0, 0])


def wide() -> tuple[list[Record], list[Gate]]:
    """Wall time: the span from first request to last answer, and memory."""
    long = drive("speed", "--points", "64:50:10000", "--reps", REPS, peers=PEERS)
    many = drive("speed", "--points", "1024:200:4000", "--reps", REPS, peers=PEERS)
    ours, crowd = summaries(long).get(US, {}), summaries(many).get(US, {})
    return [*long, *many], [
        at_most("span at 64:50:10000 / raw_aiohttp", ours.get("span_x_raw"), 1.05, " ×"),
        at_most("memory at 10,000 rows, all processes", ours.get("rss_mb"), 150, " MB"),
        lossless("rows at 64:50:10000", ours),
        at_most("span at 1024:200:4000 / raw_aiohttp", crowd.get("span_x_raw"), 1.25, " ×"),
        lossless("rows at 1024:200:4000", crowd),
    ]


def resume() -> tuple[list[Record], list[Gate]]:
    records = drive("resume", "--point", "64:50:10000", "--reps", REPS, peers="ref_journal,openai_sdk,curator_llm")
    ours = summaries(records).get(US, {})
    kills = [r for r in records if r["mode"] == "kill_half" and r["peer"] == US]
    return records, [
        exactly("finished 10,000 rows again: calls", ours.get("calls_again"), 0),
        at_most("finished 10,000 rows again: time, all imports included", ours.get("again_run_s"), 1, " s"),
        at_most("kill -9 at half: paid calls repeated, of 64 in flight (worst)", ours.get("repeated"), 64),
        exactly("kill -9 at half: rows lost, wrong", [ours.get("lost"), ours.get("wrong")], [0, 0]),
        exactly("kill -9 at half: times it was killed there", len(kills), int(REPS)),
    ]


def faults() -> tuple[list[Record], list[Gate]]:
    cases = [*TRANSIENT, POISON, ALL]
    peers = "ref_journal,openai_sdk,curator_llm"
    records = drive("faults", "--point", "64:50:1000", "--reps", REPS, "--fault", ";".join(cases), peers=peers)
    gates = []
    for case in cases:
        found = summaries(records, fault=case)
        ours, name = found.get(US, {}), "all of them" if case == ALL else case
        hopeless = ours.get("hopeless", 0)
        runs = [r for r in records if r["mode"] == "faults" and r["peer"] == US and r["fault"] == case]
        lost = [ours.get(k) for k in ("lost", "wrong", "repeated")]
        gates.append(exactly(f"{name}: rows lost, wrong, calls repeated", lost, [hopeless, 0, 0]))
        dead = sorted({(r.get("own") or {}).get("dead", -1) for r in runs})
        gates.append(exactly(f"{name}: dead letters, each with its reason", dead, [hopeless]))
        if hopeless:
            exits = sorted({(r.get("own") or {}).get("exit", -1) for r in runs})
            gates.append(Gate(f"{name}: the exit code tells", "not 0", str(exits), bool(exits) and 0 not in exits))
        most = 0.5 if case == POISON else 1.3
        gates.append(at_most(f"{name}: span / ref_journal", ours.get("span_x_ref"), most, " ×"))
    return records, gates


PARTS_KNOWN = {"speed": speed, "wide": wide, "resume": resume, "faults": faults}


def main() -> None:
    install()
    passed = True
    for part in PARTS:
        records, gates = PARTS_KNOWN[part]()
        for gate in gates:
            print(f"{'PASS' if gate.passed else 'FAIL'}  {gate.what}: {gate.figure} (bound {gate.bound})", flush=True)
        keep(f"engine, {part}", page(part, gates, records))
        passed = passed and all(gate.passed for gate in gates)
    if not passed:
        sys.exit(1)


def page(part: str, gates: list[Gate], records: list[Record]) -> str:
    """One part's section of RESULTS.md."""
    where = ", ".join(f"{name} {version}" for name, version in versions().items())
    head, row = TABLES[part]
    return "\n\n".join(
        [
            f"`make bench-engine ONLY={part}`, medians of {REPS} interleaved repetitions. {machine()}. {where}.",
            table(
                ["gate", "bound", "measured", ""],
                [[g.what, g.bound, g.figure, "pass" if g.passed else "**fail**"] for g in gates],
            ),
            table(head, [row(r) for r in in_order(r for r in records if r["mode"] == "summary")]),
        ]
    )


def in_order(records: Any) -> list[Record]:
    """By what was measured, ours first."""
    return sorted(records, key=lambda r: (r.get("fault", ""), r["conc"], r["n"], ORDER.index(r["peer"])))


def speed_row(r: Record) -> list[Any]:
    point = f"{r['peer']} {r['conc']}:{r['lat_ms']}:{r['n']}"
    names = ("cpu_ms_per_call", "x_raw_aiohttp", "startup_cpu_s", "span_s", "span_x_ideal", "rss_mb")
    return [point, *(shown(r.get(name)) for name in names)]


def resume_row(r: Record) -> list[Any]:
    return [r["peer"], r["calls_again"], shown(r["again_run_s"]), r["repeated"], r["lost"]]


def fault_row(r: Record) -> list[Any]:
    span = [shown(r["span_s"]), shown(r.get("span_x_ref"))]
    return [r["fault"], r["peer"], *span, r["lost"], r["hopeless"], r["wrong"], r["failed"]]


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


SPEED = ["speed", "CPU ms a call", "× raw_aiohttp", "start-up CPU s", "span s", "span / ideal", "MB"], speed_row
TABLES: dict[str, tuple[list[str], Callable[[Record], list[Any]]]] = {
    "speed": SPEED,
    "wide": SPEED,
    "resume": (["resume", "finished again: calls", "s", "kill at half: repeated", "lost"], resume_row),
    "faults": (["faults", "engine", "span s", "× ref_journal", "lost", "hopeless", "wrong", "gave up"], fault_row),
}
"""The head of each part's table, and how an engine's summary becomes a row."""
