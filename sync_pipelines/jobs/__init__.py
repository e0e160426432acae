"""ONE FILE PER SYNC. A file in this folder is registered by being here; job files do not import each other."""
