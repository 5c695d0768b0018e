"""`python -m bench` runs every bench; `python -m bench learning start` runs those."""

from __future__ import annotations

import sys

from bench import learning, start

BENCHES = {"start": start.main, "learning": learning.main}


def main() -> None:
    names = sys.argv[1:] or list(BENCHES)
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        sys.exit(f"no bench is called {', '.join(unknown)}; there are: {', '.join(BENCHES)}")
    for name in names:
        print(f"== {name}")
        BENCHES[name]()


main()
