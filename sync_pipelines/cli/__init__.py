"""The command line `sync-pipelines`: list, check, run, one item, trigger, new job files, and what the ledger knows."""
