"""Answers of transformers, with peft where there is an adapter: what a bundle's card says, row by row."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers


def main(asked: Path, answered: Path) -> None:
    job = json.loads(asked.read_text(encoding="utf-8"))
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(job["tokenizer"])
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=job["dtype"])
    versions = f"transformers {transformers.__version__}"
    if job["adapter"]:
        import peft

        versions += f", peft {peft.__version__}"
        model = peft.PeftModel.from_pretrained(model, job["adapter"])
    config = transformers.GenerationConfig.from_pretrained(job["tokenizer"])
    prompts, answers = [], []
    for messages in job["rows"]:
        row = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        with torch.inference_mode():
            ids = model.generate(**row, generation_config=config)[0].tolist()
        size = row["input_ids"].shape[1]
        prompts.append(ids[:size])
        answers.append(ids[size:])
    answered.write_text(json.dumps({"versions": versions, "prompts": prompts, "answers": answers}), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
