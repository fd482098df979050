"""From measured lines to docs/benchmarks.md."""
