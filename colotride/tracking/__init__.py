"""MLflow: how runs, searches and models are recorded. Nothing else in the package imports it."""
