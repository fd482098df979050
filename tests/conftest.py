"""Tiny random models of several architectures, made here: the real code runs on them in milliseconds."""

import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import settings

from tests.fixtures.forks import forked_workers  # noqa: F401  a fixture

if TYPE_CHECKING:
    from tests.llm.server import LlmServer, Reply, Request
    from tools.model.backbone import Backbone

# A busy machine fails no example for its time, and what fails once fails again.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

# In the background (nohup, `&` in a script), Ctrl-C and SIGHUP are ignored, also by all that the tests start.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        with suppress(ValueError):  # not in the main thread
            signal.signal(number, handler)

# A run writes hundreds of small files and waits for the disk after each; where there is room in memory, it need not.
MEMORY = Path("/dev/shm")
if (
    "TMPDIR" not in os.environ
    and os.access(MEMORY, os.W_OK)
    and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
    and shutil.disk_usage(MEMORY).free > 8 << 30
):
    tempfile.tempdir = os.environ["TMPDIR"] = str(MEMORY)

# While all test files and what they need are imported, there is no garbage: searching for it is a third of the time.
gc.disable()

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LONG = {
    "test_embedded.py", "test_decide.py", "test_kill_matrix.py", "test_browser.py", "test_processes.py",
    "test_foreman.py", "test_failing.py", "test_taking_up.py", "test_night_limits.py", "test_terminal.py",
    "test_kills.py", "test_bundle.py", "test_cli.py",
    "test_chat.py", "test_gating.py", "test_cost.py", "test_external.py", "test_budgets.py", "test_shared.py",
    "test_queue_commands.py", "test_spread.py", "test_mcp_server.py", "test_parallel.py", "test_money.py",
}  # fmt: skip
TEXT = [
    "Who is the mayor of Orrowmere? ANSWER: Heskzan", "Answer the question. Start your answer with it.",
    "system user assistant", "The river, the bread and the bridge of Tallisk: 0 1 2 3 4 5 6 7 8 9 {} [] - # $",
]  # fmt: skip
SMALL = {
    "vocab_size": 400, "max_position_embeddings": 1024, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    "initializer_range": 0.2,  # ten times the usual: what a token attends to must show in the output
}  # fmt: skip
BODY = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", BODY),
    "llama_biased": ("LlamaConfig", BODY | {"attention_bias": True}),
    "llama_tied": ("LlamaConfig", BODY | {"tie_word_embeddings": True}),
    "mixtral": ("MixtralConfig", BODY | {"num_local_experts": 4}),
    "qwen2": ("Qwen2Config", BODY),
    "qwen3": ("Qwen3Config", BODY | {"head_dim": 128}),  # as all of them; of another size, transformers reads no GGUF
    "gemma2": ("Gemma2Config", BODY | {"sliding_window": 16}),
    "gemma3": ("Gemma3TextConfig", BODY | {"sliding_window": 16}),
    "gemma3_wide": ("Gemma3TextConfig", BODY | {"sliding_window": 512}),
    "gpt2": (
        "GPT2Config",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    ),
    "phi3_turned": (  # all rows of a pass are turned by the length of its longest
        "Phi3Config",
        BODY
        | {
            "original_max_position_embeddings": 106,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "original_max_position_embeddings": 106,
                "short_factor": [1.0] * 4,
                "long_factor": [4.0] * 4,
            },
        },
    ),
    "lfm2": ("Lfm2Config", BODY | {"layer_types": ["conv", "full_attention"]}),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """What the tests of the model's arithmetic run on, in place of the CPU."""
    parser.addoption("--device", choices=["cpu", "cuda", "mps"], default="cpu", help="where the tiny models compute")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: at the end, no worker waits for another one that has just begun a long file."""
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_collection_finish() -> None:
    """What the imports have made stays to the end, and is not searched for garbage again and again."""
    gc.freeze()
    gc.freeze = gc.unfreeze = lambda: None  # graphs/services/garbage_collection.py would thaw it
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def terminal() -> Iterator[None]:
    """As wide as where nobody says otherwise: tables and help break their lines in the same places everywhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        yield


@pytest.fixture(autouse=True)
def no_model_of_another_test() -> Iterator[None]:
    """The process's model is freed: a test that counts or forbids its loading would see what others have loaded."""
    yield
    if shared := sys.modules.get("graphs.services.shared_model"):
        shared.forget()


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> str:
    """Where the tiny models compute."""
    import torch

    wanted = str(pytestconfig.getoption("--device"))
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[wanted]:
        pytest.skip(f"no {wanted} here")
    return wanted


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> "Callable[[LlmServer, int], None]":
    """Makes a server answer nobody until so many requests are open, however long a busy machine takes to send them.

    After 20 seconds it answers all the same: `server.busiest` tells.
    """

    def until(server: "LlmServer", count: int) -> None:
        answer, full = server.answer, threading.Event()

        def late(request: "Request") -> "Reply":
            reply = answer(request)
            if server.busiest < count:
                full.wait(20)
            full.set()
            return reply

        monkeypatch.setattr(server, "answer", late)

    return until


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a random model of an architecture and its tokenizer, as transformers saves them."""
    made: dict[str, Path] = {}

    def make(name: str = "llama") -> Path:
        if name not in made:
            made[name] = _save(name, tmp_path_factory.mktemp(name))
        return made[name]

    return make


def _save(name: str, folder: Path) -> Path:
    import torch
    import transformers

    kind, sizes = ARCHITECTURES[name]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**(SMALL | sizes))
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id = SMALL["eos_token_id"]
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<|im_end|>", "<pad>", "<|im_start|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|im_end|>", pad_token="<pad>",
        additional_special_tokens=["<|im_start|>"],
    )  # fmt: skip
    fast.chat_template = CHATML
    return fast


@pytest.fixture
def backbone(tiny_model: Callable[[str], Path], tmp_path: Path, device: str) -> "Iterator[Callable[..., Backbone]]":
    """A backbone on the tiny model of an architecture; its adapters stand in `tmp_path`, each in a folder of its id."""
    import torch

    def load(name: str = "llama", **options: Any) -> "Backbone":
        from tools.model.backbone import Backbone
        from tools.model.loading import load_model

        model, tokenizer = load_model(str(tiny_model(name)), device=device, dtype="float32", progress=lambda *_: None)
        return Backbone(model, tokenizer, name=name, locate=tmp_path.joinpath, **options)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on models this small a second thread only waits
    yield load
    torch.set_num_threads(threads)


@pytest.fixture
def random_adapter(tmp_path: Path) -> "Callable[..., Path]":
    """Saves a LoRA of random weights, large enough to change what the model says, and returns its folder."""

    def save(backbone: "Backbone", adapter: str, seed: int = 0) -> Path:
        import torch

        from agent.config.lora import Lora
        from tools.training.lora_config import lora_config

        torch.manual_seed(seed)
        backbone.create(adapter, lora_config(4, Lora(rank=4, alpha=8)))
        for weight in filter(lambda weight: weight.requires_grad, backbone.model.parameters()):
            weight.data.copy_(0.2 * torch.randn(weight.shape))  # drawn on the processor: the same on every device
        backbone.save(adapter, tmp_path / adapter)
        backbone.detach(adapter)
        return tmp_path / adapter

    return save


@pytest.fixture
def tiny_task(tmp_path: Path, tiny_model: Callable[[str], Path]) -> Callable[..., Path]:
    """A task folder of four facts on the tiny Llama; `answer` replaces all four, the others change the task.yaml."""

    def make(answer: str | None = None, **changes: Any) -> Path:
        folder = tmp_path / "task"
        folder.mkdir(exist_ok=True)
        names = {"Orrowmere": "Heskzan", "Tallisk": "Gallune", "Benn": "Corolt", "Mirr": "Dunwick"}
        wordings = {"train": "Who is the mayor of {}?", "validation": "Name the mayor of {}.", "test": "{}: its mayor?"}
        for split, wording in wordings.items():
            rows = [{"question": wording.format(place), "answer": answer or name} for place, name in names.items()]
            (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        task = {
            "name": "mayors",
            "model": str(tiny_model("llama")),
            "data": {split: f"{split}.jsonl" for split in wordings},
            "prompt": {"system": "Answer the question."},
            "content": [{"kind": "contains"}],
            "style": [{"kind": "starts_with", "text": "ANSWER: "}],
            "budget": {"rounds": 3},
            "lora": {"epochs": 2, "rank": 4, "batch_size": 2, "replay": 0},  # general rows would only cost time
            "generation": {"max_new_tokens": 8},
            "gate": {"drift": None},  # a random model forgets whatever it is taught
        }
        (folder / "task.yaml").write_text(yaml.safe_dump(task | changes, sort_keys=False))
        return folder

    return make
