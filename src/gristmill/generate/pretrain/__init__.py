"""Texts to read: entities and their relations, study notes, facts that follow from others."""
