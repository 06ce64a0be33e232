"""The paper's tables and figures: which runs they need, and how they are drawn."""
