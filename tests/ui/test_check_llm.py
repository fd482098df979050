"""`nesylora check-llm` against servers that are good enough, that are not, and that are not there."""

import re
import time

import pytest

from agent.errors import LlmUnavailable
from tests.llm.scripted_llm import kind_of, scripted_llm
from tests.llm.server import NO_TAGS, LlmServer, Reply, Request, call, refuse, serving, without_tools
from ui.cli import run
from ui.commands.pace import fitting_timeout, fitting_width, measure_rates

ASKED = ["check-llm", "--model", "mind-1", "--situations", "0", "--base-url"]
GEPA = "reflection (edit.editor: gepa)"


def checked(server: LlmServer, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = run([*ASKED, server.url, "--key-variable", "MAYOR_KEY"])
    return code, capsys.readouterr().out


def lines_of(printed: str) -> dict[str, str]:
    """The mark of each check by its name."""
    return {line[8:44].strip(): line[:8].strip() for line in printed.splitlines()}


def test_a_good_server_passes_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(scripted_llm) as server:
        code, printed = checked(server, capsys)
        marks = lines_of(printed)
        into, out = server.reported
    assert code == 0 and "Good enough as planner, editor, judge." in printed
    assert {marks[what] for what in ("answers", "usage", "planner", "editor", "judge", GEPA)} == {"ok"}
    assert f"{into:,} tokens read, {out:,} written" in printed


def test_a_server_without_tools_is_distinguished_from_a_bad_one(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(without_tools(scripted_llm)) as server:
        code, printed = checked(server, capsys)
    marks = lines_of(printed)
    assert code == 0 and "failed" not in printed
    assert marks["tool calling: one of several tools"] == "–"
    assert marks["structured output: JSON schema"] == "ok"


def test_a_server_that_takes_tools_and_calls_none_is_found_out(capsys: pytest.CaptureFixture[str]) -> None:
    def in_words(request: Request) -> Reply:
        return Reply('{"action": "stop", "reason": "So."}') if request.tools else scripted_llm(request)

    with serving(in_words) as server:
        marks = lines_of(checked(server, capsys)[1])
    assert {mark for what, mark in marks.items() if "tool calling" in what} == {"–"}
    assert marks["structured output: JSON schema"] == "ok"


def test_a_model_that_cannot_do_a_role_gets_advice_on_going_without(capsys: pytest.CaptureFixture[str]) -> None:
    """It always trains, writes no tags, and praises every answer."""

    def poor(request: Request) -> Reply:
        kind = kind_of(request)
        if kind == "plan" and "train_lora" in request.tools:
            return call("train_lora", reason="I like training.")
        if kind == "judge" and "Grade" in request.tools:
            return call("Grade", grade=5, reason="Lovely.")
        return NO_TAGS if kind == "step" else scripted_llm(request)

    with serving(poor) as server:
        code, printed = checked(server, capsys)
    assert code == 1
    assert "where style is lacking, train_lora" in printed
    assert "Not good enough as planner (without it: planner: none" in printed
    assert "Not good enough as editor (without it: edit.editor: rules)" in printed
    assert "Not good enough as judge" in printed and "Good enough as" not in printed


@pytest.mark.parametrize(
    ("system", "why"),
    [
        ("Answer the question well, and think of the sea.", "does not ask for ANSWER:"),
        ("Begin with ANSWER: and know that it is Paris, Rome or Madrid.", "gives answers away"),
    ],
)
def test_an_edit_that_helps_nobody_is_no_edit(system: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    changed = Reply(f"<IMPROVED_VARIABLE>{system}</IMPROVED_VARIABLE>")
    with serving(lambda request: changed if kind_of(request) == "step" else scripted_llm(request)) as server:
        code, printed = checked(server, capsys)
    assert (code, lines_of(printed)["editor"]) == (1, "failed")
    assert why in printed and "Good enough as planner, judge." in printed


def test_a_method_that_never_ends_does_not_block_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever calls no tool writes new lines until its time is over, as real models do on llama.cpp's server."""
    with serving(lambda request: Reply(delay=60) if request.tools else scripted_llm(request)) as server:
        code = run([*ASKED, server.url, "--timeout", "1.5"])
        printed = capsys.readouterr().out
    assert code == 0 and "llm.way: schema saves trying the ways before it." in printed


def test_what_fits_the_server_and_what_it_refuses_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(request: Request) -> Reply:
        return refuse(400, "temperature is not supported") if "temperature" in request.body else scripted_llm(request)

    with serving(answer) as server:
        code, printed = checked(server, capsys)
    assert code == 0 and "refused, and left out since: temperature (llm.temperature: null)" in printed
    assert re.search(r"llm\.timeout: 30 and llm\.max_concurrency: \d+ fit", printed)


def test_every_setting_of_the_server_can_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(scripted_llm) as server:
        asked = [*ASKED, server.url]
        code = run([*asked, "--set", "temperature=null", "--set", "way=object", "--set", "max_tokens=500"])
        assert code == 0 and not any("temperature" in request.body for request in server.requests)
        assert {request.body["max_tokens"] for request in server.requests} == {500}
        judged = [request.body for request in server.requests if kind_of(request) == "judge"]
        assert {body["response_format"]["type"] for body in judged} == {"json_object"}
        for wrong in ("way=carrier pigeon", "temprature=0", "temperature"):
            assert run([*asked, "--set", wrong]) == 2
            assert wrong.split("=")[0] in capsys.readouterr().err


# --- pace ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "width"),
    [
        ({1: 2.0, 2: 2.1}, 1),
        ({1: 2.0, 2: 3.9, 4: 7.0, 8: 7.5}, 4),
        ({1: 2.0, 2: 3.9, 4: 7.0, 8: 12.0, 16: 20.0}, 16),
        ({1: 2.0, 2: 1.0, 4: 9.0}, 1),
        ({}, 0),
    ],
)
def test_as_many_calls_at_once_fit_as_bring_more_answers(rates: dict[int, float], width: int) -> None:
    assert fitting_width(rates) == width


@pytest.mark.parametrize(("longest", "seconds"), [(0.2, 30), (10.0, 30), (34.0, 110), (147.0, 450)])
def test_the_time_limit_is_well_above_the_longest_call(longest: float, seconds: int) -> None:
    assert fitting_timeout(longest) == seconds


def test_a_server_that_refuses_several_calls_at_once_is_asked_one_by_one() -> None:
    out = 0

    def ask(place: int) -> None:
        nonlocal out
        out += 1
        if out > 4:  # the first four come one by one
            raise LlmUnavailable("HTTP 429")

    assert fitting_width(measure_rates(ask, 16)) == 1


def test_no_more_calls_go_out_at_once_than_are_allowed() -> None:
    assert max(measure_rates(lambda _: time.sleep(0.02), 2)) <= 2


def test_a_server_that_is_not_there_is_asked_once(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(scripted_llm) as server:
        pass
    server.server_close()
    code, printed = checked(server, capsys)
    assert code == 1 and "no connection" in printed and "Nothing more was asked." in printed


def test_a_server_that_reports_no_usage_is_found_out(capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import replace

    with serving(lambda request: replace(scripted_llm(request), usage=None)) as server:
        _, printed = checked(server, capsys)
    assert lines_of(printed)["usage"] == "failed"
