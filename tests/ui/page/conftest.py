"""The page over a folder with one run of realistic records, and a client that holds its cookie."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from fastapi.testclient import TestClient

from memory.run.folder import RunFolder
from tests.fixtures.story import make_run
from tests.ui.page.steers import Doubles, Steered
from ui.page.app import make_app
from ui.page.gate import Keys

HERE = "http://127.0.0.1:8765"


class Pages(NamedTuple):
    """A page, who asks it, and the runs behind it."""

    client: TestClient
    steers: Doubles
    root: Path
    keys: Keys

    def get(self, path: str, **headers: str) -> str:
        """The text of an answer that must be one."""
        answer = self.client.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.text

    def steered(self, run: RunFolder) -> Steered:
        return self.steers.steered(run, supervised=True)


@pytest.fixture
def pages(tmp_path: Path) -> Callable[..., Pages]:
    def open_pages(root: Path = tmp_path / "runs") -> Pages:
        root.mkdir(exist_ok=True)
        steers, keys = Doubles(), Keys(root)
        client = TestClient(make_app(root, steers, keys), base_url=HERE, headers={"origin": HERE})
        client.get(keys.link())
        return Pages(client, steers, root, keys)

    return open_pages


@pytest.fixture
def story(tmp_path: Path) -> RunFolder:
    """The run `valley-1`, which has not finished."""
    return make_run(tmp_path / "runs", finished=False)
