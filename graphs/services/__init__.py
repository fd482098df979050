"""What the nodes work with: model, runner, memory, external LLM, built when first asked for."""
