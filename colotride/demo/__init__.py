"""A page on which anybody sees what an attack does to the results of a model, and what a robust model makes of it."""
