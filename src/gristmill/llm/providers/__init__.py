"""The protocols: how a question is put and an answer read."""
