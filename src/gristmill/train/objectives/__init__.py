"""Objectives: each makes examples of samples, and a loss of what the model says of them."""
