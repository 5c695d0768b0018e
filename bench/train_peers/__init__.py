"""One trainer a file, run in a process of its own: `python -m bench.train_peers.NAME JOB`, with the job as JSON."""
