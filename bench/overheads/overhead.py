"""One measured cost around the model."""

from agent.records.base import Record


class Overhead(Record):
    """A row of a table of costs. `wanted`: the bound in words; empty where there is none."""

    name: str
    value: float
    unit: str
    wanted: str = ""
