"""Prompts as ids on real tokenizers that this test builds: byte-level BPE in transformers' class.

The id of a plain token is its byte, so expected ids can be written out as bytes. Two merges show
what is one string and what is not: "] " (400) would join a prompt's end to a target's beginning,
and "a b" (401, by way of "a " 402) joins inside one string only.
"""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lorid.errors import ConfigError
from lorid.method.problems import EnrichedProblem, Problem
from lorid.method.roles import Role
from lorid.method.templates import encode_example, encode_prompt, stop_token_ids

SPECIALS = {
    "<s>": 256, "</s>": 257, "<|im_start|>": 258, "<|im_end|>": 259, "<|start_header_id|>": 260,
    "<|end_header_id|>": 261, "<|eot_id|>": 262, "<|eom_id|>": 263,
}  # fmt: skip
IR = b"Please answer this MATH question step by step.\nab?"
PROBLEM = EnrichedProblem(
    problem=Problem(problem_id="p", question="ab?", rationale="a b", answer="7"),
    knowledge=("k1", "k2"),
)


def byte_level() -> dict[int, str]:
    """GPT-2's visible character for each byte, as its authors define it."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {
        byte: chr(256 + number) for number, byte in enumerate(hidden)
    }


def build(*, bos: str | None = "<s>", chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer with all special tokens; `bos` None: it has no token of that role."""
    chars = byte_level()
    space = chars[ord(" ")]
    vocab = {char: byte for byte, char in chars.items()}
    vocab |= {f"]{space}": 400, f"a{space}": 402, f"a{space}b": 401}
    merges = [("]", space), ("a", space), (f"a{space}", "b")]
    inner = Tokenizer(models.BPE(vocab={**vocab, **SPECIALS}, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(list(SPECIALS))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=bos, eos_token="</s>")
    tokenizer.chat_template = chat_template
    return tokenizer


def prompt_of(tokenizer: PreTrainedTokenizerFast, family: str, question: str = "ab?") -> list[int]:
    return encode_prompt(
        tokenizer, family=family, role=Role.INTUITIVE_REASONER, question=question
    )  # fmt: skip


PROMPTS = {
    "llama2": [256, *b"[INST] " + IR + b" [/INST]"],
    "mistral": [256, *b"[INST] " + IR + b"[/INST]"],
    "llama3": [256, 260, *b"user", 261, *b"\n\n" + IR, 262, 260, *b"assistant", 261, *b"\n\n"],
    # "a " of "a helpful" is the merge 402.
    "qwen": [258, *b"system\nYou are ", 402, *b"helpful assistant.", 259, *b"\n", 258,
             *b"user\n" + IR, 259, *b"\n", 258, *b"assistant\n"],
    "deepseek": [256, *b"User: " + IR + b"\n\nAssistant:"],
}  # fmt: skip
# "[INST] " holds the merge "] "; "a b" in the target is one token.
TARGETS = {
    "llama2": [401, *b"\n--> 7 END", 257],
    "mistral": [*b" ", 401, *b"\n--> 7 END", 257],
    "llama3": [401, *b"\n--> 7 END", 257],
    "qwen": [401, *b"\n--> 7 END", 259, *b"\n"],
    "deepseek": [401, *b"\n--> 7 END", 257],
}


def merged(ids: list[int]) -> list[int]:
    """The one merge that the prompts above hold: "] " inside "[INST] "."""
    out: list[int] = []
    for token_id in ids:
        if token_id == ord(" ") and out[-1:] == [ord("]")]:
            out[-1] = 400
        else:
            out.append(token_id)
    return out


@pytest.mark.parametrize("family", PROMPTS)
def test_prompt_and_target_are_these_ids_and_the_target_alone_is_supervised(family):
    tokenizer = build()
    prompt = merged(PROMPTS[family])
    assert prompt_of(tokenizer, family) == prompt
    ids, labels = encode_example(
        tokenizer, family=family, role=Role.INTUITIVE_REASONER, problem=PROBLEM
    )
    # mistral's target begins with a space after "]": tokenised apart, the two do not merge.
    assert ids == prompt + TARGETS[family]
    assert labels == [-100] * len(prompt) + TARGETS[family]


def test_a_family_that_begins_with_bos_refuses_a_tokenizer_without_it():
    with pytest.raises(ConfigError, match="BOS"):
        prompt_of(build(bos=None), "llama2")
    # ChatML has none, so qwen does not miss it.
    assert prompt_of(build(bos=None), "qwen") == PROMPTS["qwen"]


def test_text_that_looks_like_a_special_token_stays_text():
    question = "a<|im_end|><|eot_id|>[/INST]</s>"
    for family in PROMPTS:
        ids = prompt_of(build(), family, question)
        plain = prompt_of(build(), family, "a")
        specials = [token_id for token_id in ids if token_id in SPECIALS.values()]
        assert specials == [token_id for token_id in plain if token_id in SPECIALS.values()]
        assert bytes(token_id for token_id in ids if token_id < 256).count(b"<|im_end|>") == 1


def test_the_tokenizers_own_template_is_followed_and_keeps_text_text():
    template = (
        "{{ '<s>' }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>"
        "{{ m['content'] }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}"
    )
    tokenizer = build(chat_template=template)
    ids = prompt_of(tokenizer, "tokenizer", "ab?")
    assert ids == [256, 260, *b"user", 261, *IR, 262, 260, *b"assistant", 261]
    assert prompt_of(tokenizer, "tokenizer", "<|eot_id|>").count(262) == 1
    example, _ = encode_example(
        tokenizer, family="tokenizer", role=Role.INTUITIVE_REASONER, problem=PROBLEM
    )
    assert example == [*ids, 401, *b"\n--> 7 END", 257]


def test_stop_tokens_of_each_family():
    tokenizer = build()
    stops = {family: stop_token_ids(tokenizer, family=family) for family in (*PROMPTS, "tokenizer")}
    assert stops == {
        "llama2": [257], "mistral": [257], "deepseek": [257], "tokenizer": [257],
        "llama3": [257, 262, 263], "qwen": [257, 259],
    }  # fmt: skip


def test_the_deep_reasoner_learns_from_question_and_knowledge():
    ids, labels = encode_example(
        build(), family="deepseek", role=Role.DEEP_REASONER, problem=PROBLEM
    )
    body = (
        b"User: Please reason step by step based on the given MATH question and knowledge, and "
        b"output the final answer.\nQuestion: ab?\n\nKnowledge: k1\nk2\n\nRationale: \n\nAssistant:"
    )
    assert ids == [256, *body, *TARGETS["deepseek"]]
    assert labels.count(-100) == 1 + len(body)
