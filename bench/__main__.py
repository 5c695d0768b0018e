"""`python -m bench` runs what takes no other engines; `python -m bench NAME…` runs what is named."""

from __future__ import annotations

import sys

from bench import coverage, curate, engine, learning, local_server, million, recipes, start, teaching, train

BENCHES = {
    "start": start.main,
    "learning": learning.main,
    "engine": engine.main,
    "million": million.main,
    "local": local_server.main,
    "train": train.main,
    "recipes": recipes.main,
    "curate": curate.main,
    "teaching": teaching.main,
    "coverage": coverage.main,
}
ALONE = ("start", "learning")


def main() -> None:
    names = sys.argv[1:] or ALONE
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        sys.exit(f"no bench is called {', '.join(unknown)}; there are: {', '.join(BENCHES)}")
    for name in names:
        print(f"== {name}")
        BENCHES[name]()


main()
