"""`nesylora check-llm`: parsing, which loads nothing heavy."""

import argparse

from ui.options import add_runs, count, quiet_libraries


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`check-llm`."""
    command = commands.add_parser(
        "check-llm", help="is an LLM server good enough? let it plan, edit and judge, and tell"
    )
    command.add_argument("--model", required=True, help="as the server calls it")
    command.add_argument("--base-url", metavar="URL", help="of an OpenAI-compatible server; default: OpenAI's own")
    command.add_argument("--key-variable", default="OPENAI_API_KEY", metavar="NAME", help="where the key is read from")
    command.add_argument("--timeout", type=float, default=120, metavar="SECONDS", help="of one call (default: 120)")
    command.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE",
        help="a setting of a task's llm section, such as temperature=null or way=schema; may be given again",
    )  # fmt: skip
    command.add_argument(
        "--situations", type=count, metavar="N", help="recorded situations to plan in (default: 12; 0: none)"
    )
    add_runs(command)
    command.set_defaults(do=_check_llm)


def _check_llm(options: argparse.Namespace) -> int:
    from agent.errors import BadInput
    from ui.commands.check_llm import SITUATIONS, check_llm, settings_of

    quiet_libraries()
    if options.base_url and not options.base_url.startswith(("http://", "https://")):
        raise BadInput(f"--base-url {options.base_url}: begin it with http:// or https://")
    server = {"model": options.model, "base_url": options.base_url, "key_variable": options.key_variable}
    settings = settings_of(server | {"timeout": options.timeout, "patience": 0}, options.settings)
    situations = SITUATIONS if options.situations is None else options.situations
    return check_llm(settings, situations, options.runs)
