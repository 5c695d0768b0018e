"""Which sentences and facts the samples exercise, and which they do not."""
