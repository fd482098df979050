"""`nesylora check-llm` against servers that are good enough, that are not, and that are not there."""

import pytest

from tests.llm_mind import kind_of, mind
from tests.llm_server import NO_TAGS, LlmServer, Reply, Request, call, serving, without_tools
from ui.cli import run


def checked(server: LlmServer, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = run(["check-llm", "--model", "mind-1", "--base-url", server.url, "--key-variable", "MAYOR_KEY"])
    return code, capsys.readouterr().out


def lines_of(printed: str) -> dict[str, str]:
    """The mark of each check by its name."""
    return {line[8:44].strip(): line[:8].strip() for line in printed.splitlines()}


def test_a_good_server_passes_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(mind) as server:
        code, printed = checked(server, capsys)
        marks = lines_of(printed)
        into, out = server.reported
    assert code == 0 and "Good enough as planner, editor, judge." in printed
    assert {marks[what] for what in ("answers", "usage", "planner", "editor", "judge")} == {"ok"}
    assert f"{into:,} tokens read, {out:,} written" in printed


def test_a_server_without_tools_is_told_from_a_bad_one(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(without_tools(mind)) as server:
        code, printed = checked(server, capsys)
    marks = lines_of(printed)
    assert code == 0 and "failed" not in printed
    assert marks["tool calling: one of several tools"] == "–"
    assert marks["structured output: JSON schema"] == "ok"


def test_a_server_that_takes_tools_and_calls_none_is_found_out(capsys: pytest.CaptureFixture[str]) -> None:
    def in_words(request: Request) -> Reply:
        return Reply('{"action": "stop", "reason": "So."}') if request.tools else mind(request)

    with serving(in_words) as server:
        marks = lines_of(checked(server, capsys)[1])
    assert {mark for what, mark in marks.items() if "tool calling" in what} == {"–"}
    assert marks["structured output: JSON schema"] == "ok"


def test_who_cannot_do_a_role_is_told_what_to_do_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    """It always trains, writes no tags, and praises every answer."""

    def poor(request: Request) -> Reply:
        kind = kind_of(request)
        if kind == "plan" and "train_lora" in request.tools:
            return call("train_lora", reason="I like training.")
        if kind == "judge" and "Grade" in request.tools:
            return call("Grade", grade=5, reason="Lovely.")
        return NO_TAGS if kind == "step" else mind(request)

    with serving(poor) as server:
        code, printed = checked(server, capsys)
    assert code == 1
    assert "where style is lacking, train_lora" in printed
    assert "Not good enough as planner (without it: planner: none" in printed
    assert "Not good enough as editor (without it: edit.editor: rules)" in printed
    assert "Not good enough as judge" in printed and "Good enough as" not in printed


def test_a_server_that_is_not_there_is_asked_once(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(mind) as server:
        pass
    server.server_close()
    code, printed = checked(server, capsys)
    assert code == 1 and "no connection" in printed and "Nothing more was asked." in printed


def test_a_server_that_reports_no_usage_is_found_out(capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import replace

    with serving(lambda request: replace(mind(request), usage=None)) as server:
        _, printed = checked(server, capsys)
    assert lines_of(printed)["usage"] == "failed"
