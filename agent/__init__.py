"""The mind: records, configuration, signal, policy and planner. No torch, no Chroma, no network."""
