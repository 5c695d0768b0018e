"""Fewer, better records: the grounding gate, filters, duplicates, splits, export. Every drop has a reason."""
