"""Proposals of a race: the rows of all of them in one batch, and one proposal after another."""

from pathlib import Path

from agent.protocols import Asked
from agent.records.examples import Demo, Prompt
from bench.cost.gpu.models import Bench, same
from bench.cost.inputs import LONG, SHORT, valley
from tools.model.backbone import Backbone

ROWS = (4, 12)  # of each prompt; 12 is a task's default
KINDS = ((2, 16), (8, 48))  # demonstrations of a proposal, and most new tokens


def prompts(shown: int, long: bool) -> list[Prompt]:
    """The present prompt and four proposals: other demonstrations, another system text, both."""
    task = valley()
    system, form = task.config.prompt.system, LONG if long else SHORT
    demos = [Demo(question=row.question, answer=form.replace("{answer}", row.answer)) for row in task.train]
    first, second = tuple(demos[:shown]), tuple(demos[shown : 2 * shown])
    return [
        Prompt(system=system),
        Prompt(system=system, demos=first),
        Prompt(system=system, demos=second),
        Prompt(system=f"{system} Begin with ANSWER: and the name."),
        Prompt(system=f"{system} Say only the name.", demos=first),
    ]


def race_table(bench: Bench) -> None:
    """Seconds of all answers of a race, in turn: all prompts together, and one after another."""
    for rows in ROWS:
        for shown, new in KINDS:
            _race(bench, [Asked(prompt, valley().validation[:rows]) for prompt in prompts(shown, new > 16)], new)


def _race(bench: Bench, asked: list[Asked], new: int) -> None:
    loaded = bench.loaded()
    backbone = Backbone(loaded.model, loaded.tokenizer, name="bench", locate=Path)
    seconds: dict[str, list[float]] = {"together": [], "apart": []}
    texts: dict[str, list[str]] = {}
    for _ in range(1 + bench.laps):
        for way, laps in seconds.items():
            backbone._kept.prefix_key = None
            calls = [asked] if way == "together" else [[each] for each in asked]
            start = loaded.now()
            answers = [
                answer for call in calls for answer in backbone.generate_each(call, adapter=None, max_new_tokens=new)
            ]
            laps.append(loaded.now() - start)
            texts[way] = [text or "" for found, _ in answers for text in found]
    best = {way: min(laps[1:]) for way, laps in seconds.items()}
    bench.add(
        "race", prompts=len(asked), rows=len(asked[0].examples), new=new,
        longest=max(map(len, backbone.render.prompts_ids(*asked[-1]))),
        **{way: round(least, 4) for way, least in best.items()}, times=round(best["apart"] / best["together"], 2),
        same=same(texts["together"], texts["apart"]),
    )  # fmt: skip
