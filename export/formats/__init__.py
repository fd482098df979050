"""A whole model in the formats of others: merged safetensors, GGUF, Ollama's Modelfile."""
