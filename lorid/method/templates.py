"""Prompts and training examples as token ids, for each base family.

Example::

    ids = encode_prompt(tokenizer, family="mistral", role=Role.INTUITIVE_REASONER, question="...")

Prompt and target are tokenised separately, without special tokens, and their ids concatenated;
text between two special-id elements is tokenised as one string. Text from outside (a question, a
model's knowledge) can never become a control token: it is encoded with special tokens switched off.
A tokenizer here is any object with `TokenizerLike`'s methods, so this file needs no transformers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lorid.errors import ConfigError
from lorid.method.problems import EnrichedProblem
from lorid.method.roles import Role, role_target, user_turn

IGNORED_LABEL = -100
TOKENIZER_FAMILY = "tokenizer"
# Whoever answers it like the base has an adapter that does nothing.
PROBE_QUESTION = "Tom has 3 apples and finds 4 more apples. How many apples are there now?"
_MARK = "\ue000USER TURN\ue001"


class TokenizerLike(Protocol):
    """What templates need of a Hugging Face tokenizer."""

    bos_token_id: int | None
    eos_token_id: int | None

    def encode(self, text: str, *, add_special_tokens: bool = ..., **kwargs: Any) -> list[int]: ...
    def convert_tokens_to_ids(self, tokens: str) -> int | None: ...
    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Template:
    """How one family renders. Strings in `<|...|>`, "BOS" and "EOS" are single special ids."""

    before: tuple[str, ...]
    open_text: str
    close_text: str
    after: tuple[str, ...]
    target_prefix: str
    target_end: tuple[str, ...]
    stops: tuple[str, ...]


TEMPLATES: dict[str, Template] = {
    "llama2": Template(
        before=("BOS",),
        open_text="[INST] ",
        close_text=" [/INST]",
        after=(),
        target_prefix="",
        target_end=("EOS",),
        stops=("EOS",),
    ),
    "mistral": Template(
        before=("BOS",),
        open_text="[INST] ",
        close_text="[/INST]",
        after=(),
        target_prefix=" ",
        target_end=("EOS",),
        stops=("EOS",),
    ),
    "llama3": Template(
        before=("BOS", "<|start_header_id|>", "user", "<|end_header_id|>"),
        open_text="\n\n",
        close_text="",
        after=(
            "<|eot_id|>",
            "<|start_header_id|>",
            "assistant",
            "<|end_header_id|>",
            "\n\n",
        ),
        target_prefix="",
        target_end=("EOS",),
        stops=("EOS", "<|eot_id|>", "<|eom_id|>"),
    ),
    "qwen": Template(
        before=(
            "<|im_start|>",
            "system\nYou are a helpful assistant.",
            "<|im_end|>",
            "\n",
            "<|im_start|>",
        ),
        open_text="user\n",
        close_text="",
        after=("<|im_end|>", "\n", "<|im_start|>", "assistant\n"),
        target_prefix="",
        target_end=("<|im_end|>", "\n"),
        stops=("EOS", "<|im_end|>"),
    ),
    "deepseek": Template(
        before=("BOS",),
        open_text="User: ",
        close_text="\n\nAssistant:",
        after=(),
        target_prefix="",
        target_end=("EOS",),
        stops=("EOS",),
    ),
}

FAMILIES = (*TEMPLATES, TOKENIZER_FAMILY)


def encode_prompt(
    tokenizer: TokenizerLike,
    *,
    family: str,
    role: Role,
    question: str,
    knowledge: str | None = None,
) -> list[int]:
    """Token ids of a role's prompt.

    Raises:
        ConfigError: the family is unknown, or the tokenizer lacks a special token that it needs.
        ValueError: knowledge is missing for the deep reasoner, or given to another role.
    """
    return encode_turn(
        tokenizer, family=family, text=user_turn(role, question=question, knowledge=knowledge)
    )


def encode_turn(tokenizer: TokenizerLike, *, family: str, text: str) -> list[int]:
    """Token ids of one user turn with any text, ready for the assistant's answer."""
    if family == TOKENIZER_FAMILY:
        return _encode_chat_template(tokenizer, text)
    template = _template(family)
    body = f"{template.open_text}{text}{template.close_text}"
    return _encode_pieces(tokenizer, (*template.before, _Raw(body), *template.after))


def encode_target(tokenizer: TokenizerLike, *, family: str, text: str) -> list[int]:
    """Token ids of what an assistant writes, with the family's end."""
    if family == TOKENIZER_FAMILY:
        return _encode_pieces(tokenizer, (_Raw(text), "EOS"))
    template = _template(family)
    return _encode_pieces(
        tokenizer, (_Raw(f"{template.target_prefix}{text}"), *template.target_end)
    )


def encode_example(
    tokenizer: TokenizerLike, *, family: str, role: Role, problem: EnrichedProblem
) -> tuple[list[int], list[int]]:
    """Ids and labels of a training example, equally long; prompt labels are -100."""
    is_deep = role is Role.DEEP_REASONER
    prompt = encode_prompt(
        tokenizer,
        family=family,
        role=role,
        question=problem.problem.question,
        knowledge=role_target(Role.KNOWLEDGE_GENERATOR, problem) if is_deep else None,
    )
    target = encode_target(tokenizer, family=family, text=role_target(role, problem))
    return prompt + target, [IGNORED_LABEL] * len(prompt) + target


def stop_token_ids(tokenizer: TokenizerLike, *, family: str) -> list[int]:
    """Ids that end a generation, without repeats; tokens that the tokenizer lacks are left out."""
    names = ("EOS",) if family == TOKENIZER_FAMILY else _template(family).stops
    ids = [_special_id(tokenizer, name) for name in names]
    return list(dict.fromkeys(token_id for token_id in ids if token_id is not None))


class _Raw(str):
    """Text from outside: always encoded as text."""

    __slots__ = ()


def _template(family: str) -> Template:
    if family not in TEMPLATES:
        raise ConfigError(f"unknown family {family!r}: choose one of {', '.join(FAMILIES)}")
    return TEMPLATES[family]


def _special_id(tokenizer: TokenizerLike, name: str) -> int | None:
    if name == "BOS":
        return tokenizer.bos_token_id
    if name == "EOS":
        return tokenizer.eos_token_id
    token_id = tokenizer.convert_tokens_to_ids(name)
    return None if token_id == getattr(tokenizer, "unk_token_id", None) else token_id


def _encode_pieces(tokenizer: TokenizerLike, pieces: Sequence[str]) -> list[int]:
    ids: list[int] = []
    pending = ""
    for piece in pieces:
        is_special = not isinstance(piece, _Raw) and (
            piece in ("BOS", "EOS") or piece.startswith("<|")
        )
        if not is_special:
            pending += piece
            continue
        ids += _encode_text(tokenizer, pending)
        pending = ""
        token_id = _special_id(tokenizer, piece)
        if token_id is None:
            raise ConfigError(
                f"the tokenizer has no {piece} token, which its prompts need; set student.family "
                "to the base's own, or name the token in its tokenizer_config.json"
            )
        ids.append(token_id)
    return ids + _encode_text(tokenizer, pending)


def _encode_text(tokenizer: TokenizerLike, text: str) -> list[int]:
    if not text:
        return []
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


def _encode_chat_template(tokenizer: TokenizerLike, text: str) -> list[int]:
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": _MARK}], tokenize=False, add_generation_prompt=True
    )
    before, mark, after = str(rendered).partition(_MARK)
    if not mark:
        raise ConfigError("the tokenizer's chat template drops the user's text")
    head = list(tokenizer.encode(before, add_special_tokens=False)) if before else []
    tail = list(tokenizer.encode(after, add_special_tokens=False)) if after else []
    return head + _encode_text(tokenizer, text) + tail
