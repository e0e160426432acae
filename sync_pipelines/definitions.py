"""What Dagster loads: every sync of the job files, and what is wrong with the others. `workspace.yaml` names it."""

from sync_pipelines.orchestration.job_files import load_job_files

defs = load_job_files()
