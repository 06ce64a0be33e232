"""ColoTride: collapse-oriented adversarial training with triplet decoupling for robust image retrieval."""

__version__ = "0.1.0"
