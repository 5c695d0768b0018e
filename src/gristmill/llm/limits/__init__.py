"""How many requests, how fast: found, paced, shared by all who use the key."""
