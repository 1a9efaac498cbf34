"""The tool inside others: Olive, MLflow; each an extra."""
