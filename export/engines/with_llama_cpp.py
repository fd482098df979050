"""Answers of llama.cpp's own server over a GGUF file, through the package xllamacpp."""

import json
import os
import sys
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xllamacpp

CONTEXT = 512  # tokens that a prompt may have beside those known


def main(asked: Path, answered: Path) -> None:
    job = json.loads(asked.read_text(encoding="utf-8"))
    settings = xllamacpp.CommonParams()
    settings.model.path = job["model"]
    if job.get("lora"):
        settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(job["lora"], 1.0)]
    settings.hostnames, settings.port = ["127.0.0.1"], 0
    settings.n_ctx, settings.n_parallel = job["context"] + CONTEXT, 1
    for threads in (settings.cpuparams, settings.cpuparams_batch):
        # As they are set, all cores wait in a spin: beside other work that takes a hundred times as long.
        threads.n_threads, threads.poll = max(1, (os.cpu_count() or 1) // 2), 0
    settings.use_jinja, settings.warmup = True, False
    server = xllamacpp.Server(settings)
    prompts, answers = [], []
    for messages in job["rows"]:
        text = post(server.listening_address, "/apply-template", {"messages": messages})["prompt"]
        prompts.append(post(server.listening_address, "/tokenize", {"content": text, "parse_special": True})["tokens"])
        body = {
            "messages": messages, "max_tokens": job["max_new_tokens"], "temperature": 0, "cache_prompt": False,
            "stop": job["stop"],
        }  # fmt: skip
        reply = post(server.listening_address, "/v1/chat/completions", body)["choices"][0]["message"]
        answers.append((reply.get("reasoning_content") or "") + (reply["content"] or ""))
    found = {"versions": f"xllamacpp {version('xllamacpp')}", "prompts": prompts, "answers": answers}
    answered.write_text(json.dumps(found), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # the server's threads would wait for further requests


def post(server: str, path: str, body: dict[str, object]) -> Any:
    request = urllib.request.Request(f"{server}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
