"""An OpenAI-compatible server of what runs brought: bundles, or the best pairs of runs, by name over one base."""
