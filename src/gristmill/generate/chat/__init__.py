"""Conversations with a purpose: retrieved passages, corrections, thoughts, several turns, system messages."""
