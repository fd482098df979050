"""A reward model as scorer: a sequence classifier with one logit, read from safetensors."""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
import transformers

from agent.config.scorers import RewardModel
from agent.errors import BadInput
from agent.protocols import Progress, Rating
from agent.records.examples import Example


class RewardModelRater:
    """Satisfies `agent.protocols.Rater`: the logit, clipped to [low, high] and mapped to [0, 1]. Loads at first use.

    Args:
        device: as torch names it.
        progress: called while the model loads and after each batch of rows.
    """

    def __init__(self, settings: RewardModel, device: str, progress: Progress | None = None) -> None:
        self._settings = settings
        self._device = device
        self._progress = progress or (lambda *_: None)

    def rate(self, answered: Sequence[tuple[Example, str]]) -> list[Rating]:
        """One rating in [0, 1] per (example, output), in order, without a reason.

        Raises:
            BadInput: the model cannot be loaded, is no reward model, or gives a logit that is no number.
        """
        logits: list[float] = []
        for start in range(0, len(answered), self._rows):
            logits += self._logits(answered[start : start + self._rows])
            self._progress("asking the reward model", len(logits), len(answered))
        low, high = self._settings.low, self._settings.high
        return [Rating((min(max(logit, low), high) - low) / (high - low)) for logit in logits]

    @torch.inference_mode()
    def _logits(self, answered: Sequence[tuple[Example, str]]) -> list[float]:
        """[B] one logit per (example, output). Raises BadInput: one is no number."""
        tokenizer, model = self._parts
        room = {"truncation": True, "max_length": self._most_tokens, "return_tensors": "pt"}
        if tokenizer.chat_template:
            chats = [tokenizer.apply_chat_template(_chat(*pair), tokenize=False) for pair in answered]
            tokens = tokenizer(chats, add_special_tokens=False, padding=len(chats) > 1, **room)
        else:  # a tokenizer without a separator just puts one after the other
            asked = [_asked(example) + "\n" for example, _ in answered]
            tokens = tokenizer(asked, [output for _, output in answered], padding=len(asked) > 1, **room)
        logits: list[float] = model(**tokens.to(self._device)).logits[:, 0].float().tolist()  # of [B, 1]
        if not all(map(math.isfinite, logits)):
            raise BadInput(f"the reward model '{self._settings.model}' gave a logit that is no number")
        return logits

    @property
    def _rows(self) -> int:
        """Rows of a forward pass: one, where model and tokenizer disagree on the padding token."""
        tokenizer, model = self._parts
        padding = model.config.get_text_config().pad_token_id
        return self._settings.batch_size if padding is not None and padding == tokenizer.pad_token_id else 1

    @property
    def _most_tokens(self) -> int:
        tokenizer, model = self._parts
        window = getattr(model.config.get_text_config(), "max_position_embeddings", None) or self._settings.max_tokens
        return int(min(self._settings.max_tokens, tokenizer.model_max_length, window))

    @cached_property
    def _parts(self) -> tuple[transformers.PreTrainedTokenizerBase, transformers.PreTrainedModel]:
        name = self._settings.model
        self._progress("loading the reward model", 0, 1, name)
        try:
            tokenizer, model = self._load(name)
        except (OSError, ValueError) as error:
            raise BadInput(
                f"the reward model '{name}' cannot be loaded: {str(error).splitlines()[0]} "
                "Give a hub name that this machine can reach, or a local folder."
            ) from error
        self._progress("loading the reward model", 1, 1, name)
        return tokenizer, model

    def _load(self, name: str) -> tuple[transformers.PreTrainedTokenizerBase, transformers.PreTrainedModel]:
        if Path(name).is_dir():  # a second's work; a download from the hub keeps its bar
            transformers.utils.logging.disable_progress_bar()
        labels = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False).num_labels
        if labels != 1:
            raise BadInput(f"'{name}' is no reward model: it has {labels} labels, and a reward model has one")
        # An answer's end matters more than a question's beginning; padding on the right moves no token.
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            name, trust_remote_code=False, truncation_side="left", padding_side="right"
        )
        model, found = transformers.AutoModelForSequenceClassification.from_pretrained(
            name,
            dtype=torch.float32 if self._device == "cpu" else "auto",
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        if found["missing_keys"]:
            lacking = ", ".join(sorted(found["missing_keys"])[:3])
            raise BadInput(f"'{name}' is no reward model: it has no weights for {lacking}")
        return tokenizer, model.to(self._device).eval()


def _chat(example: Example, output: str) -> list[dict[str, str]]:
    system = [{"role": "system", "content": example.system}] if example.system else []
    turns = [{"role": turn.role, "content": turn.content} for turn in example.turns]
    return [*system, *turns, {"role": "user", "content": example.question}, {"role": "assistant", "content": output}]


def _asked(example: Example) -> str:
    return "\n".join([*filter(None, [example.system]), *(turn.content for turn in example.turns), example.question])
