"""Commands behind every figure that Gristmill quotes. `python -m bench NAME`; results are kept in RESULTS.md."""
