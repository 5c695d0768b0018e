"""Weights -> an OpenAI-compatible address on this machine. Never writes to a run."""
