"""Adapters that peft saved elsewhere: they answer as with peft alone and leave the base as it is, or are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, PeftType, get_peft_model
from peft.tuners.lora.config import KasaConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from agent.errors import BadInput
from agent.records.examples import Example, Prompt
from tests.fixtures.plain import Plain
from tools.adapters.files import SUPPORTED_KINDS, check_files
from tools.model.backbone import Backbone
from ui.commands.evaluate import score

Load = Callable[..., Backbone]
Models = Callable[[str], Path]
Save = Callable[..., Path]

PROMPT = Prompt(system="Answer the question.")
ROWS = [Example(name=f"v:{n}", question="Who is the mayor " * n + "of Tallisk?", answer="x") for n in range(1, 4)]
SAID = [("ANSWER: ", "Gallune")] * 3
TARGETS: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"]}

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "LORA": ("LoraConfig", TARGETS),
    "ADALORA": ("AdaLoraConfig", TARGETS | {"total_step": 10}),
    "BOFT": ("BOFTConfig", TARGETS | {"boft_block_size": 4}),
    "C3A": ("C3AConfig", TARGETS | {"block_size": 8}),
    "DELORA": ("DeloraConfig", TARGETS),
    "FOURIERFT": ("FourierFTConfig", TARGETS | {"n_frequency": 20}),
    "GRALORA": ("GraloraConfig", TARGETS),
    "HIRA": ("HiraConfig", TARGETS),
    "HRA": ("HRAConfig", TARGETS),
    "IA3": ("IA3Config", {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
    "LN_TUNING": ("LNTuningConfig", {"target_modules": ["input_layernorm", "norm"]}),
    "LOHA": ("LoHaConfig", TARGETS),
    "LOKR": ("LoKrConfig", TARGETS),
    "MISS": ("MissConfig", TARGETS | {"r": 4}),
    "OFT": ("OFTConfig", TARGETS | {"oft_block_size": 8, "r": 0}),
    "RANDLORA": ("RandLoraConfig", TARGETS),
    "ROAD": ("RoadConfig", TARGETS | {"group_size": 8}),
    "SHIRA": ("ShiraConfig", TARGETS | {"r": 4}),
    "VBLORA": ("VBLoRAConfig", TARGETS | {"vector_length": 8, "num_vectors": 16}),
    "VERA": ("VeraConfig", TARGETS),
    "WAVEFT": ("WaveFTConfig", TARGETS | {"n_frequency": 20}),
}
LORAS: list[tuple[str, dict[str, Any]]] = [
    ("llama", TARGETS | {"init_lora_weights": "eva"}),
    ("llama", TARGETS | {"init_lora_weights": "mica"}),
    ("llama", TARGETS | {"modules_to_save": ["lm_head"]}),
    ("llama", {"target_modules": ["embed_tokens", "lm_head"]}),  # peft saves the base's own embeddings with them
    ("llama_tied", TARGETS | {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
    ("llama_tied", {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True}),
]


@pytest.fixture
def foreign(tiny_model: Models, tmp_path: Path) -> Save:
    """Makes an adapter by peft alone, shakes what it would train, and saves it as `tmp_path/foreign`."""

    def save(config: peft.PeftConfig, name: str = "llama") -> Path:
        torch.manual_seed(0)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model(name)), config)
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data.add_(0.1 * torch.randn(weight.shape))
        model.save_pretrained(tmp_path / "foreign")
        return tmp_path / "foreign"

    return save


def likelihoods(ours: Backbone, adapter: str | None) -> list[float | None]:
    return ours.nll(PROMPT, ROWS, SAID, adapter=adapter)[0]


def assert_as_peft_alone(ours: Backbone, model: Path, folder: Path) -> None:
    """The same likelihoods and texts, again after it was taken off; then the base is the one on disk, to the bit."""
    plain, bare = Plain(model, folder, ours.device), likelihoods(ours, None)
    scored = [ours.render.scored_row(PROMPT, row, *completion) for row, completion in zip(ROWS, SAID, strict=True)]
    with torch.no_grad():
        wanted = [float(plain.losses(row.prompt, row.completion).mean()) for row in scored]
    nats = likelihoods(ours, "foreign")
    assert nats == pytest.approx(wanted, rel=1e-4)
    assert nats != pytest.approx(bare, rel=1e-4)
    prompts = [ours.render.prompt_ids(PROMPT, row) for row in ROWS]
    texts = [ours.render.text_of(plain.answer(ids, ours.ends, 6)) for ids in prompts]
    assert ours.generate(PROMPT, ROWS, adapter="foreign", max_new_tokens=6)[0] == texts
    assert likelihoods(ours, None) == bare
    ours.detach("foreign")
    whole = ours.base.state_dict()
    for part, weight in Plain(model, device=ours.device).model.state_dict().items():
        assert torch.equal(whole.pop(part), weight), part
    assert not whole
    assert likelihoods(ours, "foreign") == nats


def test_every_kind_that_is_let_in_is_tried() -> None:
    assert set(SUPPORTED_KINDS) == set(KINDS) <= set(PeftType.__members__)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_let_in_answers_as_with_peft_alone(
    kind: str, foreign: Save, backbone: Load, tiny_model: Models
) -> None:
    name, settings = KINDS[kind]
    folder = foreign(getattr(peft, name)(task_type="CAUSAL_LM", **settings))
    assert_as_peft_alone(backbone(), tiny_model("llama"), folder)


@pytest.mark.parametrize(("name", "settings"), LORAS, ids=[str(settings) for _, settings in LORAS])
def test_a_lora_from_elsewhere_answers_as_with_peft_alone(
    name: str, settings: dict[str, Any], foreign: Save, backbone: Load, tiny_model: Models
) -> None:
    folder = foreign(LoraConfig(task_type="CAUSAL_LM", **settings), name)
    assert_as_peft_alone(backbone(name), tiny_model(name), folder)


def test_another_kind_takes_turns_with_our_own(
    foreign: Save, backbone: Load, random_adapter: Callable[..., Path]
) -> None:
    ours = backbone()
    random_adapter(ours, "own")
    foreign(peft.IA3Config(task_type="CAUSAL_LM", **KINDS["IA3"][1]))
    bare, own, of_peft = (likelihoods(ours, adapter) for adapter in (None, "own", "foreign"))
    assert bare != own != of_peft != bare
    assert [likelihoods(ours, adapter) for adapter in ("own", None, "foreign")] == [own, bare, of_peft]


# --- those that are refused ----------------------------------------------------------------------

VIRTUAL: dict[str, Any] = {"num_virtual_tokens": 4}
REFUSED: list[tuple[peft.PeftConfig, str]] = [
    (peft.PrefixTuningConfig(task_type="CAUSAL_LM", **VIRTUAL), "is of kind PREFIX_TUNING, which cannot be used here"),
    (peft.PromptTuningConfig(task_type="CAUSAL_LM", **VIRTUAL), "is of kind PROMPT_TUNING, which cannot be used here"),
    (peft.PromptEncoderConfig(task_type="CAUSAL_LM", **VIRTUAL), "is of kind P_TUNING, which cannot be used here"),
    (LoraConfig(init_lora_weights="pissa", **TARGETS), "has `init_lora_weights: pissa`: its weights belong to a base"),
    (LoraConfig(init_lora_weights="pissa_niter_4", **TARGETS), "has `init_lora_weights: pissa_niter_4`"),
    (LoraConfig(init_lora_weights="olora", **TARGETS), "has `init_lora_weights: olora`"),
    (LoraConfig(init_lora_weights="lora_ga", **TARGETS), "has `init_lora_weights: lora_ga`"),
    (
        LoraConfig(kasa_config=KasaConfig(), **TARGETS),
        "has `kasa_config`, which takes a part out of the base's weights",
    ),
    (LoraConfig(layer_replication=[(0, 2), (1, 2)], **TARGETS), "has `layer_replication`, which builds other layers"),
    (
        LoraConfig(alora_invocation_tokens=[5, 6], **TARGETS),
        "has `alora_invocation_tokens`, which is active only behind",
    ),
    (LoraConfig(bias="lora_only", **TARGETS), "has `bias`, which trains the base's own biases"),
]


@pytest.mark.parametrize(("config", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_one_that_would_change_the_base_is_refused_before_a_model_is_loaded(
    config: peft.PeftConfig, message: str, foreign: Save, backbone: Load, tiny_task: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    ours, folder = backbone(), foreign(config)
    monkeypatch.setattr("tools.model.loading.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(BadInput) as caught:
        score(str(tiny_task()), None, folder, [], 0)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    before = likelihoods(ours, None)
    with pytest.raises(BadInput):
        likelihoods(ours, "foreign")
    assert likelihoods(ours, None) == before


def test_the_way_out_that_is_named_for_pissa_is_one(
    foreign: Save, backbone: Load, tiny_model: Models, tmp_path: Path
) -> None:
    """As peft documents it: the untrained adapter is saved first, and names no such start."""
    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", init_lora_weights="pissa", **TARGETS)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model("llama")), config)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "untrained")
    model.peft_config["default"].init_lora_weights = "pissa"
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data.add_(0.1 * torch.randn(weight.shape))
    model.save_pretrained(tmp_path / "foreign", path_initial_model_for_weight_conversion=str(tmp_path / "untrained"))
    assert_as_peft_alone(backbone(), tiny_model("llama"), tmp_path / "foreign")


@pytest.mark.parametrize("part", ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.base_layer.weight"])
def test_weights_of_another_base_in_the_file_are_refused_and_not_written_into_ours(
    part: str, foreign: Save, backbone: Load
) -> None:
    folder = foreign(LoraConfig(task_type="CAUSAL_LM", **TARGETS))
    ours, file = backbone(), folder / "adapter_model.safetensors"
    own = dict(ours.base.named_parameters())[part.replace(".base_layer", "")]
    save_file(load_file(file) | {f"base_model.model.{part}": own.detach() + 1}, file, metadata={"format": "pt"})
    before = likelihoods(ours, None)
    with pytest.raises(BadInput, match=r"carries weights of its base, and model\..* is not this model's: merge it"):
        likelihoods(ours, "foreign")
    assert likelihoods(ours, None) == before


def test_an_adapter_of_another_size_is_refused_and_leaves_base_and_kept_adapters(
    foreign: Save, backbone: Load, random_adapter: Callable[..., Path]
) -> None:
    folder = foreign(LoraConfig(task_type="CAUSAL_LM", r=8, **TARGETS))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 4}))
    for kept in ([], ["kept"]):
        ours = backbone()
        for adapter in kept:
            random_adapter(ours, adapter)
        before = [likelihoods(ours, adapter) for adapter in (None, *kept)]
        names = list(ours.base.state_dict()) if not kept else []
        with pytest.raises(BadInput, match="does not fit llama: was it made for it"):
            likelihoods(ours, "foreign")
        assert [likelihoods(ours, adapter) for adapter in (None, *kept)] == before
        assert kept or list(ours.base.state_dict()) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"adapter_config\.json in .* cannot be read"),
        ("{", r"adapter_config\.json in .* cannot be read"),
        ("[]", r"adapter_config\.json in .* is no object"),
        ('{"peft_type": "NEWEST"}', "is of kind NEWEST, which cannot be used here"),
        ('{"peft_type": "LORA", "task_type": "SEQ_CLS"}', "was made for SEQ_CLS, not for a model that answers"),
    ],
)
def test_a_damaged_or_strange_description_is_a_sentence(text: str | None, message: str, foreign: Save) -> None:
    folder = foreign(LoraConfig(task_type="CAUSAL_LM", **TARGETS))
    (folder / "adapter_config.json").unlink()
    if text is not None:
        (folder / "adapter_config.json").write_text(text)
    with pytest.raises(BadInput, match=message):
        check_files(folder)


def test_damaged_weights_are_a_sentence(foreign: Save, backbone: Load) -> None:
    folder = foreign(LoraConfig(task_type="CAUSAL_LM", **TARGETS))
    whole = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"adapter_model\.safetensors in .* cannot be read"):
        likelihoods(backbone(), "foreign")
