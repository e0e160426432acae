"""`python -m sync_pipelines.cli`: the same as `sync-pipelines`."""

from sync_pipelines.cli.app import main

if __name__ == "__main__":
    main()
