"""Every option of peft's LoRA lives through training, saving and reading and leaves the base alone, or is refused."""

import copy
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from agent.config.lora import Lora
from agent.config.lora_options import INITS, OURS, PEFTS_OWN, REFUSED, Options, check_options, chosen
from agent.errors import BadInput, StepFailed
from agent.records.actions import TrainLora
from agent.records.examples import Demo, Example, Prompt
from agent.records.training import TrainingJob
from graphs.context import Context, new_run
from graphs.services.run import RunServices
from memory.run.folder import RunFolder
from tests.fixtures.plain import Plain
from tools.model.backbone import Backbone
from tools.training.lora import LoraTrainer
from tools.training.lora_config import lora_config, try_settings

Load = Callable[..., Backbone]
Models = Callable[[str], Path]

PROMPT = Prompt(system="Answer.", demos=(Demo(question="Who is the mayor of Benn?", answer="ANSWER: Corolt"),) * 2)
EXAMPLES = [
    Example(name=f"train:{n}", question=f"Who is the mayor of {place}?", answer=f"ANSWER: {name}")
    for n, (place, name) in enumerate({"Orrowmere by the river": "Heskzan", "Tallisk": "Gallune the Elder"}.items(), 1)
]
ACTION = TrainLora(epochs=2, rank=4, learning_rate=1e-2)
NAMED = ["q_proj", "embed_tokens", "lm_head"]


# --- none is forgotten ---------------------------------------------------------------------------


def test_every_field_of_pefts_lora_is_supported_or_refused_or_set_here() -> None:
    """Fails when peft adds one: try what it does to the base, then put it where it belongs."""
    kinds = [set(Options.model_fields), set(REFUSED), set(OURS), set(PEFTS_OWN)]
    assert set().union(*kinds) == {field.name for field in dataclasses.fields(LoraConfig)}
    assert sum(map(len, kinds)) == len(set().union(*kinds))


def test_every_initialisation_that_peft_names_is_supported_or_refused() -> None:
    [init] = [field for field in dataclasses.fields(LoraConfig) if field.name == "init_lora_weights"]
    named = set(re.findall(r"['\"]([a-z]+)", str(init.type)))
    assert {"gaussian", "pissa"} <= named <= {"gaussian", "orthogonal", "mica", *INITS}


# --- those to be had -----------------------------------------------------------------------------

LIVES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"rslora": True, "dropout": 0.1}),
    ("llama", {"dora": True, "targets": NAMED}),
    ("llama_tied", {"targets": NAMED}),
    ("llama", {"options": {"init_lora_weights": False}}),
    ("llama", {"options": {"init_lora_weights": "gaussian"}}),
    ("llama", {"options": {"init_lora_weights": "orthogonal"}}),
    ("llama", {"targets": NAMED, "options": {"init_lora_weights": "mica"}}),
    ("llama", {"options": {"exclude_modules": ["q_proj"]}}),
    ("llama", {"options": {"exclude_modules": r".*\.k_proj", "modules_to_save": ["lm_head", "model.norm"]}}),
    ("llama_tied", {"options": {"modules_to_save": ["embed_tokens", "lm_head"]}}),
    ("gpt2", {"options": {"fan_in_fan_out": True}}),
    ("llama", {"targets": ["q_proj"], "options": {"layers_to_transform": 1, "layers_pattern": "layers"}}),
    ("llama", {"options": {"rank_pattern": {"q_proj": 8}, "alpha_pattern": {"v_proj": 3.0}}}),
    ("llama_tied", {"options": {"trainable_token_indices": [5, 30, 60]}}),
    ("llama", {"options": {"trainable_token_indices": {"embed_tokens": [5, 30, 60]}}}),
    ("llama_biased", {"options": {"lora_bias": True}}),
    ("mixtral", {"targets": ["q_proj"], "options": {"target_parameters": ["experts.down_proj"]}}),
    (
        "llama",
        {"targets": ["q_proj"], "options": {"use_bdlora": {"target_modules_bd_b": ["q_proj"], "nblocks": 2}}},
    ),
]


def test_every_supported_option_is_tried() -> None:
    assert {name for _, settings in LIVES for name in settings.get("options", {})} == set(Options.model_fields)


def likelihoods(ours: Backbone, adapter: str | None) -> list[float | None]:
    return ours.nll(PROMPT, EXAMPLES, [("", example.answer) for example in EXAMPLES], adapter=adapter)[0]


@pytest.mark.parametrize(("name", "changes"), LIVES, ids=[f"{name} {changes}" for name, changes in LIVES])
def test_an_adapter_says_the_same_wherever_it_is_read_and_the_base_stays_to_the_bit(
    name: str, changes: dict[str, Any], backbone: Load, tiny_model: Models, tmp_path: Path
) -> None:
    settings = Lora(rank=4, batch_size=2, **changes)
    options = copy.deepcopy(settings.options)

    def fit(ours: Backbone, adapter: str, parent: str | None = None, seed: int = 0) -> None:
        rows = [(PROMPT, example) for example in EXAMPLES]
        trainer = LoraTrainer(ours, settings, lambda *_: None)
        # Another seed alone makes the same weights where nothing is drawn: some inits are computed from the base.
        action = ACTION.model_copy(update={"learning_rate": ACTION.learning_rate / (1 + seed)})
        trainer.train(
            TrainingJob(adapter=adapter, rows=rows, action=action, folder=tmp_path / adapter, parent=parent, seed=seed)
        )

    here, there = backbone(name), backbone(name)
    try_settings(here, settings)
    bare = likelihoods(here, None)
    fit(here, "kept", seed=1)
    kept = likelihoods(here, "kept")
    fit(here, "tuned")
    nats, answers = likelihoods(here, "tuned"), here.generate(PROMPT, EXAMPLES, adapter="tuned", max_new_tokens=6)[0]
    assert bare != nats != kept
    here.detach("tuned")
    assert likelihoods(here, "tuned") == nats
    assert likelihoods(there, "tuned") == nats

    plain = Plain(tiny_model(name), tmp_path / "tuned", here.device)
    rows = [here.render.row(PROMPT, example) for example in EXAMPLES]
    with torch.no_grad():
        wanted = [float(plain.losses(row.prompt, row.completion[:-1]).mean()) for row in rows]
    assert nats == pytest.approx(wanted, rel=1e-4)
    texts = [here.render.text_of(plain.answer(row.prompt, here.ends, 6)) for row in rows]
    assert answers == texts

    fit(here, "child", parent="tuned")
    fit(there, "same", parent="tuned")
    assert likelihoods(here, "child") == likelihoods(there, "same") != nats
    here.detach("child")
    assert (likelihoods(here, None), likelihoods(here, "kept")) == (bare, kept)
    for adapter in ("kept", "tuned"):
        here.detach(adapter)
    whole = here.base.state_dict()
    for part, weight in Plain(tiny_model(name), device=here.device).model.state_dict().items():
        assert torch.equal(whole.pop(part), weight), part
    assert not whole
    assert settings.options == options


def test_peft_works_on_copies_of_the_options() -> None:
    settings = Lora(targets=("q_proj",), options={"modules_to_save": ["lm_head"], "rank_pattern": {"q_proj": 8}})
    config = lora_config(16, settings)
    config.modules_to_save.append("norm")
    config.rank_pattern.clear()
    assert settings.options == {"modules_to_save": ["lm_head"], "rank_pattern": {"q_proj": 8}}


def test_an_option_that_is_switched_off_is_as_if_left_out() -> None:
    off = {"bias": "none", "kasa_config": None, "use_qalora": False, "rank_pattern": None}
    check_options(Lora(options=off))
    assert chosen(Lora(options=off)) == {}


# --- those that are refused ----------------------------------------------------------------------


def refusal(**settings: Any) -> str:
    with pytest.raises(BadInput) as caught:
        check_options(Lora(**settings))
    return str(caught.value)


@pytest.mark.parametrize("name", [*REFUSED, *OURS, *PEFTS_OWN])
def test_an_unsupported_option_is_refused_by_name(name: str) -> None:
    message = refusal(options={name: "all" if name == "bias" else {"a": 1}})
    assert message.startswith(f"lora.options.{name} ")
    assert "\n" not in message


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "OLoRA", "corda", "loftq", "eva", "lora_ga"])
def test_an_initialisation_that_changes_the_base_or_needs_data_is_refused(init: str) -> None:
    assert refusal(options={"init_lora_weights": init}).startswith(f"lora.options.init_lora_weights `{init}`: it ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"options": {"bais": "none"}}, "lora.options.bais is no option of peft's LoRA; did you mean `bias`?"),
        ({"options": {"r": 8}}, "lora.options.r is set by `lora.rank`"),
        ({"options": {"init_lora_weights": "gausian"}}, "lora.options.init_lora_weights: Input should be 'gaussian'"),
        ({"options": {"trainable_token_indices": [-1]}}, "greater than or equal to 0, but it is -1"),
        ({"options": {"rank_pattern": {"q_proj": 0}}}, "greater than or equal to 1, but it is 0"),
        ({"options": {"lora_bias": "yes"}}, "lora.options.lora_bias: Input should be a valid boolean, but it is 'yes'"),
        ({"options": {"layers_to_transform": [1]}}, "needs `lora.targets` as a list of names"),
        ({"targets": ["q_proj"], "options": {"layers_pattern": "h"}}, "no effect without `layers_to_transform`"),
        ({"dora": True, "options": {"lora_bias": True}}, "cannot be combined with `lora.dora`"),
        (
            {"options": {"lora_bias": True, "init_lora_weights": "mica"}},
            "cannot be combined with `init_lora_weights: mica`",
        ),
        ({"rank": 5, "options": {"init_lora_weights": "orthogonal"}}, "needs an even `lora.rank`, and it is 5"),
        ({"dora": True, "options": {"init_lora_weights": "mica"}}, "cannot be combined with `lora.dora`"),
        ({"dora": True, "options": {"use_bdlora": {"nblocks": 2}}}, "lora.options.use_bdlora cannot be combined with"),
    ],
)
def test_an_unsupported_value_or_pair_is_refused(settings: dict[str, Any], message: str) -> None:
    assert message in refusal(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": ["q_proj", "vproj"]}, "lora.targets: 'vproj' matches nothing"),
        ({"options": {"modules_to_save": ["lm_haed"]}}, "lora.options.modules_to_save: 'lm_haed' matches nothing"),
        ({"options": {"modules_to_save": ["norm"]}}, "write more of the name: 'model.norm'"),
        ({"options": {"exclude_modules": ["qproj"]}}, "lora.options.exclude_modules: 'qproj' matches nothing"),
        ({"options": {"exclude_modules": "qproj"}}, "lora.options.exclude_modules: 'qproj' matches nothing"),
        ({"options": {"target_parameters": ["experts.w1"]}}, "target_parameters: 'experts.w1' matches nothing"),
        ({"options": {"rank_pattern": {"qproj": 8}}}, "lora.options.rank_pattern: 'qproj' matches no module that gets"),
        ({"options": {"alpha_pattern": {"lm_head": 8}}}, "alpha_pattern: 'lm_head' matches no module that gets a LoRA"),
        ({"targets": ["q_proj"], "options": {"layers_to_transform": [1, 2]}}, "there is no layer 2; the last is 1"),
        ({"options": {"trainable_token_indices": [400]}}, "there is no token 400; the last is 399"),
        ({"options": {"trainable_token_indices": {"lm_head": [400]}}}, "there is no token 400; the last is 399"),
        ({"options": {"trainable_token_indices": {"wte": [4]}}}, "trainable_token_indices: 'wte' matches nothing"),
        ({"options": {"trainable_token_indices": {"q_proj": [4]}}}, "do not make a LoRA of llama"),
        ({"targets": ["embed_tokens"], "options": {"lora_bias": True}}, "do not make a LoRA of llama"),
    ],
)
def test_what_the_model_does_not_have_is_refused_and_leaves_the_base_and_its_adapters(
    settings: dict[str, Any], message: str, backbone: Load, random_adapter: Callable[..., Path]
) -> None:
    ours = backbone()
    random_adapter(ours, "kept")
    before = [likelihoods(ours, None), likelihoods(ours, "kept")]
    with pytest.raises(BadInput) as caught:
        try_settings(ours, Lora(**settings))
    assert message in str(caught.value)
    assert [likelihoods(ours, None), likelihoods(ours, "kept")] == before


def test_a_rank_that_only_the_planner_asks_for_fails_the_step_and_not_the_run(backbone: Load, tmp_path: Path) -> None:
    settings = Lora(rank=4, options={"init_lora_weights": "orthogonal"})
    job = TrainingJob(
        adapter="new", rows=[(PROMPT, EXAMPLES[0])], action=TrainLora(rank=5), folder=tmp_path / "new", parent=None,
        seed=0,
    )  # fmt: skip
    with pytest.raises(StepFailed, match=r"rank 5 instead of lora\.rank 4 is not possible"):
        LoraTrainer(backbone(), settings, lambda *_: None).train(job)


def test_trying_the_settings_changes_no_draw_that_follows(backbone: Load) -> None:
    ours = backbone()
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    try_settings(ours, Lora())
    assert torch.equal(torch.rand(3), wanted)


# --- what a user is shown ------------------------------------------------------------------------


def test_a_run_is_not_even_laid_out_and_the_line_is_named(tiny_task: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny_task(lora={"options": {"bias": "all"}})
    with pytest.raises(BadInput, match=r"task\.yaml, line \d+: lora\.options\.bias trains the base's own biases"):
        new_run(folder, runs=tmp_path / "runs")
    with pytest.raises(BadInput, match=r"override 'lora\.options\.kasa_config=\{\}': lora\.options\.kasa_config takes"):
        new_run(tiny_task(), ["lora.options.kasa_config={}"], runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_what_needs_the_model_is_refused_when_it_is_loaded(tiny_task: Callable[..., Path], tmp_path: Path) -> None:
    run = new_run(tiny_task(lora={"options": {"modules_to_save": ["lm_haed"]}}), runs=tmp_path / "runs")
    with pytest.raises(BadInput, match="'lm_haed' matches nothing"):
        _ = RunServices(Context(run=str(run.path))).backbone


def test_an_earlier_versions_run_opens_and_is_reported_before_the_model_is_loaded(
    tiny_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_run(tiny_task(), runs=tmp_path / "runs").path
    text = (folder / "task.yaml").read_text()
    (folder / "task.yaml").write_text(text.replace("options: {}", "options: {init_lora_weights: olora}"))
    monkeypatch.setattr("tools.model.loading.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    context = RunServices(Context(run=str(RunFolder.open(folder).path)))
    assert context.spec.config.lora.options == {"init_lora_weights": "olora"}
    with pytest.raises(BadInput, match=r"olora.*takes a part out of the base's weights"):
        _ = context.backbone
