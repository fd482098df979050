"""Scripts that ask an exported thing in an environment of its own. They import nothing of NeSyLoRA.

Each is called with a JSON file of what to ask and writes a JSON file of answers:

    {"model": …, "adapter": … or null, "tokenizer": …, "dtype": …, "rows": [[message, …], …], "max_new_tokens": …}
    {"versions": …, "prompts": [[id, …], …] or null, "answers": [text or [id, …], …]}
"""
