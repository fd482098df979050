"""The external LLM: its client, budget, retries and structured output."""
