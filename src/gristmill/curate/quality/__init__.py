"""How good a sample is: local scores, and judges with rubrics."""
