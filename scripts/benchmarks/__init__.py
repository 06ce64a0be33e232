"""Speed and memory, as ratios measured side by side; run by scripts/benchmark.py."""
