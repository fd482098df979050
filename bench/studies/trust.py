"""`python -m bench.studies.trust`: how soon a planner is overruled, good or bad, by `agent.policy.trust`.

Own choices are drawn from the rounds of tasks/practice/experience.jsonl: what each gained, and what its outlook had
promised. So a planner whose choices are worth what the rules' are gains what those rounds gained; others gain a part.
"""

import random
from collections.abc import Iterator, Sequence

from agent.example_tasks import shipped
from agent.policy.trust import EVEN, LEAST, OwnChoice, outlook_of, trust_in
from memory.experience import ExperienceFile

CHOICES, RUNS = 6, 5_000
PLANNERS = {"as the rules": 1.0, "half of that": 0.5, "a quarter": 0.25, "nothing": 0.0}


def main() -> int:
    """Print the table, and return the exit code."""
    rounds = ExperienceFile(shipped("practice") / "experience.jsonl").read()
    seen = [OwnChoice(line.gain, line.cost, outlook_of(line.move, line.signal)) for line in rounds]
    print(f"| its choices gain | {' | '.join(f'overruled after {n}' for n in range(1, CHOICES + 1))} | ever told |")
    print("|---|" + "---|" * (CHOICES + 1))
    for name, share in PLANNERS.items():
        runs = list(_runs([choice._replace(gain=choice.gain * share) for choice in seen]))
        overruled = [sum(min(trust[:n]) < LEAST for trust in runs) / RUNS for n in range(1, CHOICES + 1)]
        told = sum(min(trust) < EVEN for trust in runs) / RUNS
        print(f"| {name} | " + " | ".join(f"{share:.3f}" for share in (*overruled, told)) + " |")
    return 0


def _runs(choices: Sequence[OwnChoice]) -> Iterator[list[float]]:
    """The trust after each own choice of a run, in many runs."""
    generator = random.Random(0)
    for _ in range(RUNS):
        drawn = generator.choices(choices, k=CHOICES)
        yield [trust_in([(choice, 1.0) for choice in drawn[:count]]) for count in range(1, CHOICES + 1)]


if __name__ == "__main__":
    raise SystemExit(main())
