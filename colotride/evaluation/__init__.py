"""The evaluator: benign retrieval metrics, ten attack scores, ERS and ARS."""
