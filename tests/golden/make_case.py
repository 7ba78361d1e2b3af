"""Makes a golden case with transformers (and peft): a small random Qwen snapshot and what it must compute.

    python3 make_case.py OUT --arch qwen3 --heads 8 --kv-heads 1 --lora all --seed 3

Needs torch, transformers 5 and peft; everything is computed on the CPU in float32. docs/golden-cases.md has the format.
"""
import argparse
import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM
import transformers

ROWS, LENGTH, STEPS, PROMPT, NEW = 3, 48, 6, 12, 24
ADAMW = {"lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1, "clip": 1.0,
         "note": "decay on every trainable parameter"}
LINEAR = {"qv": ["q_proj", "v_proj"],
          "all": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--arch", choices=["qwen2", "qwen3"], default="qwen2")
    p.add_argument("--hidden", type=int, default=64)
    p.add_argument("--intermediate", type=int, default=176)
    p.add_argument("--layers", type=int, default=3)
    p.add_argument("--heads", type=int, default=4)
    p.add_argument("--kv-heads", type=int, default=2)
    p.add_argument("--head-dim", type=int, default=32, help="Qwen3 only: Qwen2's is hidden / heads")
    p.add_argument("--vocab", type=int, default=512)
    p.add_argument("--untied", action="store_true")
    p.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of the snapshot's files")
    p.add_argument("--shard", default="5GB", help="largest shard, such as 100KB")
    p.add_argument("--lora", choices=LINEAR)
    p.add_argument("--rank", type=int, default=8)
    p.add_argument("--rslora", action="store_true")
    p.add_argument("--seed", type=int, default=0)
    return p.parse_args()


def random_model(a):
    sizes = dict(hidden_size=a.hidden, intermediate_size=a.intermediate, num_hidden_layers=a.layers, num_attention_heads=a.heads,
                 num_key_value_heads=a.kv_heads, vocab_size=a.vocab, tie_word_embeddings=not a.untied, max_position_embeddings=512,
                 rope_parameters={"rope_theta": 1000000.0, "rope_type": "default"}, bos_token_id=None, eos_token_id=None,
                 use_cache=False)
    model = (Qwen2ForCausalLM(Qwen2Config(**sizes)) if a.arch == "qwen2"
             else Qwen3ForCausalLM(Qwen3Config(head_dim=a.head_dim, **sizes)))
    for name, parameter in model.named_parameters():
        spread = 0.1 if "norm" in name else 0.05 if name.endswith("bias") else 0.08
        parameter.data.normal_(1.0 if "norm" in name else 0.0, spread)
    # Files may hold rounded values; the case is computed in float32 from what they hold.
    model.to(getattr(torch, a.dtype)).save_pretrained(a.out, max_shard_size=a.shard)
    return type(model).from_pretrained(a.out, dtype=torch.float32)


def random_batch(vocab):
    ids = torch.randint(0, vocab, (ROWS, LENGTH))
    mask = torch.ones_like(ids)
    for row, length in enumerate([LENGTH, *torch.randint(LENGTH // 2, LENGTH, (ROWS - 1,)).tolist()]):
        mask[row, length:] = 0
    labels = ids.clone()
    labels[mask == 0] = -100
    labels[:, :8] = -100
    labels[torch.rand(ids.shape) < 0.1] = -100
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def loss_of(model, batch):
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), batch["labels"][:, 1:].reshape(-1))
    return loss, logits


def greedy(model, prompt):
    tokens = prompt.tolist()
    for _ in range(NEW):
        with torch.no_grad():
            tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens


def main():
    a = arguments()
    torch.manual_seed(a.seed)
    a.out.mkdir(parents=True, exist_ok=True)
    model = random_model(a)
    if a.lora:
        from peft import LoraConfig, get_peft_model
        model = get_peft_model(model, LoraConfig(r=a.rank, lora_alpha=2 * a.rank, target_modules=LINEAR[a.lora], lora_dropout=0.0,
                                                 use_rslora=a.rslora, task_type="CAUSAL_LM"))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0.0, 0.02)
        model.save_pretrained(a.out / "adapter")
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}

    first, batches = random_batch(a.vocab), [random_batch(a.vocab) for _ in range(STEPS)]
    loss, logits = loss_of(model, first)
    loss.backward()
    tensors = {**first, "logits": logits.detach(), **{f"grad.{name}": p.grad.clone() for name, p in trained.items()}}
    tensors |= {f"step{i}.{key}": value for i, batch in enumerate(batches) for key, value in batch.items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, a.out / "golden.safetensors")

    optimizer = torch.optim.AdamW(trained.values(), lr=ADAMW["lr"], betas=ADAMW["betas"], eps=ADAMW["eps"],
                                  weight_decay=ADAMW["weight_decay"])
    losses, norms = [], []
    for batch in batches:
        optimizer.zero_grad()
        step_loss, _ = loss_of(model, batch)
        step_loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(trained.values(), ADAMW["clip"])))
        optimizer.step()
        losses.append(float(step_loss.detach()))
    golden = {"loss": float(loss.detach()), "adamw": ADAMW, "losses": losses, "grad_norms": norms,
              "greedy": greedy(model, first["input_ids"][0, :PROMPT]), "transformers": transformers.__version__}
    (a.out / "golden.json").write_text(json.dumps(golden))
    if a.lora:
        model.merge_and_unload().save_pretrained(a.out / "merged-after-6-steps")


if __name__ == "__main__":
    main()
