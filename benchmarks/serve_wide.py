"""The demo's triple on a wider base: adapters as small beside it as those of a 7B student are.

    triple = widened(demo_triple(store, folder, num_problems=64), folder)

The demo's adapters (rank 32 on every layer) hold a third of its base's parameters, those that LoRID
published (rank 512 on q and v of a 7B) 4%. Here it is 4% of 56 million, drawn at random: rank 96 on
q and v, scaled as theirs. Such a model's words mean nothing and each text is as long as it may be,
which is as good for counting tokens a second; its tokenizer and problems are the demo's.
"""

import dataclasses
from pathlib import Path

from serve_triple import DemoTriple

from lorid.engines.settings import set_environment
from lorid.method.roles import Role

RANK, MAX_NEW_TOKENS = 96, 64
SHAPE = {
    "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8,
    "num_attention_heads": 12, "num_key_value_heads": 12,
}  # fmt: skip


def widened(triple: DemoTriple, folder: Path) -> DemoTriple:
    """The triple with another base and other adapters, written into `folder`."""
    # vLLM's environment is read when torch is imported.
    set_environment(triple.config.engine, student=triple.config.student)
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    path, base = triple.config.student.path, folder / "wide-base"
    config = AutoConfig.from_pretrained(path)
    layers = SHAPE["num_hidden_layers"]
    config.update(SHAPE | {"layer_types": ["full_attention"] * layers})
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)  # far from uniform, so that the greedy token is clear
    model.save_pretrained(base)
    AutoTokenizer.from_pretrained(path).save_pretrained(base)
    settings = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules=["q_proj", "v_proj"], init_lora_weights=False,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    folders = {role: folder / f"wide-{role}" for role in Role}
    for number, role in enumerate(Role):
        torch.manual_seed(2 + number)
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        get_peft_model(plain, settings).save_pretrained(str(folders[role]))
    changed = triple.config.model_copy(
        update={
            "student": triple.config.student.model_copy(
                update={"path": str(base), "dtype": "float32"}
            ),
            "sampling": triple.config.sampling.model_copy(
                update={"max_new_tokens": MAX_NEW_TOKENS}
            ),
        }
    )
    return dataclasses.replace(triple, config=changed, folders=folders)
