"""The ground: records, the stage contract, store, files, events, errors, secrets. Imports nothing of ours."""
