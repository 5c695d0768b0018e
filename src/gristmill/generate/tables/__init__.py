"""Rows from nothing: typed columns, drawn or written, that depend on each other."""
