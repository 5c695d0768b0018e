"""What rounds of writing gain: `bench/coverage.yaml`, measured as `bench/teaching.py` does, with its settings."""

from __future__ import annotations

from pathlib import Path

from bench.teaching import measured


def main() -> None:
    print("\n".join(measured(Path(__file__).with_name("coverage.yaml"), key="repeat.times", least="1")))
