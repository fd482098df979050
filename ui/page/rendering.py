"""Templates: the page's own, and the report's, which they are built from."""

from functools import cache
from pathlib import Path

from fastapi.responses import HTMLResponse
from jinja2 import ChoiceLoader, Environment, FileSystemLoader
from markupsafe import Markup

from graphs.control.extension import in_words
from ui.report.write import LOADER, with_words
from ui.status_wording import CONDITIONS, figures
from ui.talk.plans import answered

HERE = Path(__file__).parent


@cache
def environment() -> Environment:
    loader = ChoiceLoader([FileSystemLoader(HERE / "templates"), LOADER])
    made = with_words(Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True))
    made.filters |= {"limits": in_words, "answered": answered}
    made.globals |= {"conditions": CONDITIONS, "figures": figures}
    return made


def warm() -> None:
    """Compile all templates, so that no reader waits for it."""
    for name in environment().list_templates(["j2", "css"]):
        if not name.endswith(".md.j2"):
            environment().get_template(name)


def text(template: str, **facts: object) -> Markup:
    """A template, filled in."""
    return Markup(environment().get_template(template).render(facts))


def render(template: str, code: int = 200, **facts: object) -> HTMLResponse:
    """A template, filled in, as an answer."""
    return HTMLResponse(text(template, **facts), code)


def partial(target: str, content: str, swap: str = "innerMorph") -> Markup:
    """A part of an answer or of a message: htmx puts its content into the element that the selector names."""
    return Markup('<hx-partial hx-target="{}" hx-swap="{}">{}</hx-partial>\n').format(target, swap, Markup(content))
