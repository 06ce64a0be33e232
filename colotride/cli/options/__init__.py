"""The options of every command; nothing here imports torch, so that help appears at once."""
