"""What was said before: by meaning, in earlier runs, in benchmarks."""
