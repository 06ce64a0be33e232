"""Models on the Hugging Face hub: what is pushed there, and how it comes back."""
