"""Samples in, checkpoint out. The only room that changes weights, and the same samples, config, seed and thread
count always give the same bytes, however often the run was killed on the way."""
