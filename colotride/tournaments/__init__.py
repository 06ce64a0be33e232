"""The tournament: every defense searched in its own space at the same cost, its best retrained, and all compared."""
