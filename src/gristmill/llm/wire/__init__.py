"""Bytes to and from one server, and what their failures mean."""
