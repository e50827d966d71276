#!/usr/bin/env python3
"""make_tiny_model.py OUTDIR: a tiny Llama that a CPU serves fast, made without any network.

Writes OUTDIR/tiny (2 layers, 0.67 million random parameters, a byte-level BPE tokenizer trained on text
made here, a chat template) and the LoRA adapters OUTDIR/lora-a and OUTDIR/lora-b in PEFT's layout.
The seeds are fixed: weights and tokenizer are the same in every run. Its text is gibberish; queueing,
batching, prefix caching, adapters and cancellation in a server that loads it are real.
"""

import json
import os
import random
import shutil
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HIDDEN, LAYERS, HEADS, KV_HEADS = 128, 2, 4, 2
HEAD_WIDTH = HIDDEN // HEADS
CONTEXT_TOKENS = 4096
LORA_RANK = 8
PAD, BOS, EOS, START, END = "<|pad|>", "<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"

WORDS = (
    "the a of to in is you that it he was for on are as with his they I at be this have from or one "
    "had by word but not what all were we when your can said there use an each which she do how their if "
    "will up other about out many then them these so some her would make like him into time has look two "
    "more write go see number no way could people my than first water been call who oil its now find long "
    "down day did get come made may part system user assistant server model token cache prefix adapter "
    "queue request route replica gateway stream response answer question please explain hello world"
).split()

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def corpus():
    """Sentences of common words and some JSON, from a fixed seed."""
    rng = random.Random(7)
    sentences = [
        " ".join(rng.choice(WORDS) for _ in range(rng.randint(5, 25))).capitalize() + rng.choice(".?!")
        for _ in range(4000)
    ]
    roles = ["user", "system", "tool"]
    return sentences + [json.dumps({"role": rng.choice(roles), "n": rng.randint(0, 9999)}) for _ in range(500)]


def make_tokenizer():
    """Byte-level BPE, so that any UTF-8 text round-trips."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        special_tokens=[PAD, BOS, EOS, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        additional_special_tokens=[START, END],
        model_max_length=CONTEXT_TOKENS,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(tokenizer):
    torch.manual_seed(0)
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_WIDTH,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=False,
        **special,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.generation_config.update(**special)
    return model


def write_adapter(directory, seed):
    """PEFT's layout, written by hand: two small matrices for each query and value projection."""
    os.makedirs(directory)
    generator = torch.Generator().manual_seed(seed)

    def random_matrix(rows, columns):
        return (torch.randn(rows, columns, generator=generator) * 0.5).to(torch.bfloat16)

    tensors = {}
    for layer in range(LAYERS):
        for projection, width in (("q_proj", HIDDEN), ("v_proj", KV_HEADS * HEAD_WIDTH)):
            name = f"base_model.model.model.layers.{layer}.self_attn.{projection}"
            tensors[f"{name}.lora_A.weight"] = random_matrix(LORA_RANK, HIDDEN)
            tensors[f"{name}.lora_B.weight"] = random_matrix(width, LORA_RANK)
    save_file(tensors, os.path.join(directory, "adapter_model.safetensors"))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny",
        "r": LORA_RANK,
        "lora_alpha": 2 * LORA_RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["q_proj", "v_proj"],
        "fan_in_fan_out": False,
        "inference_mode": True,
        "modules_to_save": None,
    }
    with open(os.path.join(directory, "adapter_config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)


def main():
    out = sys.argv[1]
    # Written aside and renamed: a directory of this name is always whole.
    unfinished = f"{out}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    os.makedirs(os.path.join(unfinished, "tiny"))
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(os.path.join(unfinished, "tiny"))
    model = make_model(tokenizer)
    model.save_pretrained(os.path.join(unfinished, "tiny"), safe_serialization=True)
    for seed, name in enumerate(("lora-a", "lora-b"), start=1):
        write_adapter(os.path.join(unfinished, name), seed)
    shutil.rmtree(out, ignore_errors=True)
    os.rename(unfinished, out)
    print(f"{out}: {len(tokenizer)} tokens, {sum(p.numel() for p in model.parameters())} parameters")


if __name__ == "__main__":
    main()
