"""Exact and near-duplicates at scale, beside rensa alone on the same texts in turns: `make bench-curate`.

rensa alone is what its users write: a set of word shingles for each text, a digest matrix, and the flags of its index,
with nothing confirmed. Ours folds the texts, keeps apart what differs in a number or a name, and confirms each pair by
exact Jaccard. Of the texts a tenth have a near-double planted. Memory and CPU are those of a process of its own that
reads the samples from a run's table (ROWS=… for fewer).
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import orjson
from rensa import RMinHash, RMinHashLSH

from bench.engine import Gate, at_most
from bench.machine import machine
from bench.table import keep, table
from gristmill.core.records import Sample
from gristmill.curate.dedup import run
from gristmill.curate.stages import DedupConfig
from gristmill.runs.folder import Counts, Inputs, Output, Writer

ROWS = int(os.environ.get("ROWS", "100000"))
TIMED = min(ROWS, 20_000)  # of them, in memory, beside rensa
TURNS = 5
WORDS, CHANGED, VOCABULARY = 120, 3, 20_000
CONFIG = DedupConfig(kind="curate.dedup")
MB = 1024


def texts(many: int) -> Iterator[str]:
    """Random texts of about twelve sentences; every tenth is followed, somewhere, by its near-double."""
    rng = random.Random(11)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(VOCABULARY)]
    waiting: list[list[str]] = []
    for made in range(many):
        if waiting and (made % 10 == 9 or len(waiting) > many - made):
            tokens = waiting.pop(rng.randrange(len(waiting)))
        else:
            tokens = rng.choices(words, k=WORDS)
            if made % 10 == 0 and made + 9 < many:
                double = [*tokens]
                for at in rng.sample(range(WORDS), CHANGED):
                    double[at] = rng.choice(words)
                waiting.append(double)
        yield " ".join(_sentence(tokens[at : at + 10]) for at in range(0, WORDS, 10))


def _sentence(tokens: list[str]) -> str:
    return f"{' '.join(tokens).capitalize()}."


def samples(many: int) -> list[Sample]:
    made = enumerate(texts(many))
    return [Sample(form="text", kind="bench", text=text, parents=(f"{at:016x}",)) for at, text in made]


def shingles(text: str) -> set[str]:
    tokens = text.split()
    return {" ".join(tokens[at : at + 3]) for at in range(len(tokens) - 2)}


def rensa_alone(pool: list[Sample]) -> int:
    matrix = RMinHash.digest_matrix_from_token_sets((shingles(sample.text) for sample in pool), 128, 42)
    return sum(RMinHashLSH(0.8, 128, 32).query_duplicate_flags_matrix_one_shot(matrix))


def ours(pool: list[Sample]) -> int:
    return sum(not isinstance(found, Sample) for found in run(CONFIG, pool, None))  # type: ignore[arg-type]


def seconds(work: Callable[[list[Sample]], int], pool: list[Sample]) -> float:
    began = time.process_time()
    work(pool)
    return time.process_time() - began


def planted(many: int) -> int:
    """Pairs whose true Jaccard reaches the threshold, found by their first half: no hash, no sketch."""
    seen: dict[str, set[str]] = {}
    pairs = 0
    for text in texts(many):
        mine = shingles(text.lower().replace(".", ""))
        openings = [" ".join(text.lower().split()[at : at + 10]) for at in range(0, WORDS, 10)]
        other = next((seen[opening] for opening in openings if opening in seen), None)
        if other is not None and len(mine & other) / len(mine | other) >= CONFIG.threshold:
            pairs += 1
        seen |= dict.fromkeys(openings, mine)
    return pairs


def write(folder: Path, many: int) -> Output:
    with Writer(Output(folder), Counts()) as writer:
        for sample in samples(many):
            writer.give([sample.to_row()])
        return writer.finish("bench")


def pass_alone(folder: Path) -> None:
    """What the pass takes, in a process that holds nothing else: said as JSON."""
    inputs = Inputs([Output(folder)])
    next(iter(inputs))
    before, began = _resident(), time.process_time()
    dropped = sum(not isinstance(found, Sample) for found in run(CONFIG, inputs, None))  # type: ignore[arg-type]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = {"dropped": dropped, "cpu": time.process_time() - began, "mb": (peak - before) / MB}
    print(orjson.dumps(said).decode())


def _resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def main() -> None:
    pool = samples(TIMED)
    turns = [(seconds(rensa_alone, pool), seconds(ours, pool)) for _ in range(TURNS)]
    theirs, mine = (TIMED / median(each) for each in zip(*turns, strict=True))
    del pool
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "01-samples"
        write(folder, ROWS)
        command = [sys.executable, "-c", f"from bench.curate import *; pass_alone(Path({str(folder)!r}))"]
        said = orjson.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    pairs = planted(ROWS)
    judge(theirs, mine, said["dropped"], pairs, said)


def judge(theirs: float, mine: float, dropped: int, pairs: int, said: dict[str, float]) -> None:
    gates = [
        _at_least("speed beside rensa alone (both one thread, in memory)", mine / theirs, 0.8),
        _at_least(f"recall on {pairs:,} planted pairs at a Jaccard of 0.8 and more", dropped / pairs, 0.99),
        at_most("dropped that are no such pair", max(0, dropped - pairs), 0),
        at_most(f"memory of the pass over {ROWS:,} samples, beyond its start", said["mb"], 300, " MB"),
        at_most("its CPU, reading the samples twice included", said["cpu"], 60, " s"),
    ]
    for gate in gates:
        print(f"{'PASS' if gate.passed else 'FAIL'}  {gate.what}: {gate.figure} (bound {gate.bound})")
    rows = [[g.what, g.bound, g.figure, "pass" if g.passed else "**fail**"] for g in gates]
    speeds = f"Texts of {WORDS} words: rensa alone {theirs:,.0f}/s, `curate.dedup` {mine:,.0f}/s, median of {TURNS}."
    keep("curation", f"`make bench-curate`. {machine()}. {speeds}\n\n{table(['gate', 'bound', 'measured', ''], rows)}")
    if not all(gate.passed for gate in gates):
        sys.exit(1)


def _at_least(what: str, figure: float, bound: float) -> Gate:
    return Gate(what, f"≥ {bound:g}", f"{figure:.4g}", figure >= bound)
