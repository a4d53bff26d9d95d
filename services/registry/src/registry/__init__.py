"""The registry: models, versions, artifacts, stages and transitions."""
