"""What is done to a backbone on a task: the columns of the study."""

RULES = "rules"
CELLS = {
    "seed prompt": ("budget.rounds=0",),
    "retrieval": ("prompt.retrieval={k: 4}", "budget.rounds=0"),
    "words": ("policy=prompt-only",),
    "LoRA": ("policy=lora-only",),
    "LoRA, remade rows": ("policy=steps rrrr",),
    "both": ("prompt.retrieval={k: 4}", "policy=steps rr"),
    "paper": ("policy=paper",),
    RULES: ("policy=rules",),
}
MEANING = {
    "seed prompt": "the task's first prompt, nothing else",
    "retrieval": "the first prompt with the four nearest train rows before each question, no training",
    "words": "prompt edits only (`prompt-only`)",
    "LoRA": "training only, on the rows as given (`lora-only`)",
    "LoRA, remade rows": "training only, on rows in the wanted form (`steps rrrr`)",
    "both": "retrieval, and two rounds of training on rows that each have their own retrieved examples",
    "paper": "the switch of the paper (`policy: paper`)",
    RULES: "the agent decides (`policy: rules`)",
}
