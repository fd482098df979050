"""Who may see the page, and who may change anything."""

import stat
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from memory.run.folder import RunFolder
from tests.ui.page.conftest import HERE, Pages
from ui.page.app import make_app
from ui.page.gate import KEY_FILE, Keys


@pytest.fixture
def page(pages: Callable[..., Pages], story: RunFolder) -> Pages:
    return pages()


def stranger(page: Pages, **headers: str) -> TestClient:
    """A browser without the cookie."""
    return TestClient(page.client.app, base_url=HERE, headers=headers, follow_redirects=False)


@pytest.mark.parametrize("path", ["/", "/runs/valley-1", "/runs/valley-1/events", "/prompts", "/new", "/openapi.json"])
def test_without_the_cookie_nothing_is_shown(page: Pages, path: str) -> None:
    answer = stranger(page).get(path)
    assert answer.status_code == 401
    assert "valley" not in answer.text and "nesylora ui" in answer.text


def test_a_link_lets_one_browser_in_once(page: Pages) -> None:
    link = page.keys.link()
    first, second = stranger(page), stranger(page)
    assert first.get(link).headers["location"] == "/"
    assert first.get("/").status_code == 200
    assert second.get(link).status_code == 401
    assert second.get("/").status_code == 401
    assert first.get(link).status_code == 303  # who is in already just comes to the page


def test_the_cookie_is_for_this_site_and_no_script(page: Pages) -> None:
    cookie = stranger(page).get(page.keys.link()).headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie


def test_a_browser_stays_in_when_the_server_starts_again(page: Pages) -> None:
    again = TestClient(make_app(page.root, page.steers, Keys(page.root)), base_url=HERE, cookies=page.client.cookies)
    assert again.get("/").status_code == 200


def test_the_key_is_its_owners_alone(page: Pages) -> None:
    assert stat.S_IMODE((page.root / KEY_FILE).stat().st_mode) == 0o600


def test_another_runs_folder_has_another_key_and_cookie(page: Pages, pages: Callable[..., Pages]) -> None:
    other = pages(page.root.parent / "other")
    assert other.keys.cookie != page.keys.cookie
    stolen = page.client.cookies[page.keys.cookie]
    assert TestClient(other.client.app, base_url=HERE, cookies={other.keys.cookie: stolen}).get("/").status_code == 401


@pytest.mark.parametrize("host", ["evil.example:8765", "127.0.0.1:9", "127.0.0.1", "", "127.0.0.1:8765.evil.example"])
def test_a_name_that_somebody_else_gave_this_machine_is_not_answered(page: Pages, host: str) -> None:
    assert page.client.get("/", headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:9", "null", "https://127.0.0.1:8765", None]
)
def test_another_site_cannot_steer_though_the_browser_holds_the_cookie(
    page: Pages, story: RunFolder, origin: str | None
) -> None:
    steered = page.steered(story)
    browser = TestClient(page.client.app, base_url=HERE, cookies=page.client.cookies)
    answer = browser.post("/runs/valley-1/pause", headers={"origin": origin} if origin else {})
    assert answer.status_code == 403 and "nothing was done" in answer.text
    assert steered.asked == []


def test_a_page_runs_no_script_but_its_own_and_sits_in_no_frame(page: Pages) -> None:
    headers = page.client.get("/runs/valley-1").headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "..%2fvalley-1", "%2e%2e%2f%2e%2e%2fetc", "valley-1%2f..%2fvalley-1", "%00"]
)
def test_a_name_that_climbs_out_is_no_run(page: Pages, name: str) -> None:
    assert page.client.get(f"/runs/{name}/charts").status_code in (404, 422)


def test_a_form_has_a_largest_size(page: Pages) -> None:
    answer = page.client.post("/runs/valley-1/say", data={"said": "x" * 300_000})
    assert answer.status_code == 413


def test_another_browser_gets_a_link_from_the_first(page: Pages) -> None:
    answer = page.client.post("/links").text
    link = answer.split('href="')[1].split('"')[0]
    assert stranger(page).get(link.removeprefix(HERE)).status_code == 303
