"""Speed as ratios in one run: `pytest tests/benchmarks --benchmark-enable -s`."""
