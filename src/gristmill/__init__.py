"""Gristmill: documents in, model out, and proof that it learned."""

__version__ = "0.1.0"
