"""One zygote for all tests of faults: it takes seconds to begin, and none to fork."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.zygote import Zygote, zygote


@pytest.fixture(scope="session")
def processes(tiny_model: Callable[[str], Path]) -> Iterator[Zygote]:
    with zygote(tiny_model("llama")) as made:
        yield made
