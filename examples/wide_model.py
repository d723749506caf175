"""Train a transformer of width 1024 on the Python files of this environment, to compress and check it afterwards.

    python examples/wide_model.py build/wide --minutes 2 --device cuda
    narrows compress build/wide/model build/wide/small --texts build/wide/texts.jsonl --budget keep=0.8 --device cuda
    narrows check build/wide/small --against build/wide/model --device cuda --workload prefill:2048x1 \
        --workload prefill:8192x1 --workload decode:2048x8

The source of installed packages is public text that every environment has: nothing is downloaded. A
tenth of the files is kept from training and written to texts.jsonl. Needs `pip install narrows[models]`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

if TYPE_CHECKING:
    from collections.abc import Sequence

VOCABULARY = 8192
CONTEXT = 1024  # tokens a training window
WARM_UP = 0.02  # share of the time over which the learning rate rises
LEARNING_RATE = 6e-4
HELD_OUT = 10  # every tenth file


def main() -> None:
    """Train, save the model and the text that it did not see."""
    arguments = parse()
    documents = files(arguments.megabytes)
    held_out, seen = documents[::HELD_OUT], [one for i, one in enumerate(documents) if i % HELD_OUT]
    tokenizer = trained_tokenizer(seen)
    ids_T = tokens_of(seen, tokenizer)
    print(f"{len(seen)} files, {len(ids_T):,} tokens to train on; {len(held_out)} files kept apart", flush=True)
    torch.manual_seed(0)
    model = LlamaForCausalLM(configuration(arguments.width, arguments.layers)).to(arguments.device)
    train(model, ids_T.to(arguments.device), minutes=arguments.minutes, batch=arguments.batch)
    save(model, tokenizer, held_out, arguments.out)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--minutes", type=float, default=2.0, help="of training (default 2)")
    parser.add_argument("--device", default="cuda", help="default cuda")
    parser.add_argument("--width", type=int, default=1024, help="hidden size (default 1024)")
    parser.add_argument("--layers", type=int, default=8, help="default 8")
    parser.add_argument("--batch", type=int, default=32, help="windows a step (default 32)")
    parser.add_argument("--megabytes", type=float, default=100.0, help="of text at most (default 100)")
    return parser.parse_args(argv)


def files(megabytes: float) -> list[str]:
    """Return the Python files of this environment's packages in a fixed mixed order, each once."""
    folder = Path(sysconfig.get_paths()["purelib"])
    paths = sorted(folder.rglob("*.py"))
    random.Random(0).shuffle(paths)  # noqa: S311 (no secret)
    found: dict[str, None] = {}
    left = megabytes * 1e6
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="ignore")
        if 1000 < len(text) < 200_000 and text not in found:
            found[text] = None
            left -= len(text)
        if left < 0:
            break
    return list(found)


def trained_tokenizer(documents: Sequence[str]) -> Any:
    """Return a byte-level BPE tokenizer trained on a sample of the documents."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(documents[:1000], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")  # noqa: S106


def tokens_of(documents: Sequence[str], tokenizer: Any) -> torch.Tensor:
    """Return all documents as one row of token ids, each followed by <end>."""
    rows = tokenizer(list(documents), verbose=False)["input_ids"]
    return torch.tensor([one for row in rows for one in (*row, tokenizer.eos_token_id)], dtype=torch.int32)


def configuration(width: int, layers: int) -> LlamaConfig:
    """Return a Llama: heads of 64, grouped-query, SwiGLU of 2.75 times the width, positions to 16384."""
    heads = max(2, width // 64)
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=16384,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
    )


def train(model: Any, ids_T: torch.Tensor, *, minutes: float, batch: int) -> None:
    """Train on random windows until the time is over; AdamW, bfloat16, a cosine over the time."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.1, betas=(0.9, 0.95))
    generator = torch.Generator(ids_T.device).manual_seed(0)
    offsets = torch.arange(CONTEXT, device=ids_T.device)
    started, steps, said = time.monotonic(), 0, 0.0
    while (gone := (time.monotonic() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(gone / WARM_UP, 1.0) * (0.05 + 0.475 * (1 + math.cos(math.pi * gone)))
        starts = torch.randint(len(ids_T) - CONTEXT, (batch,), generator=generator, device=ids_T.device)
        ids_BT = ids_T[starts[:, None] + offsets].long()
        with torch.autocast(ids_T.device.type, dtype=torch.bfloat16):
            loss = model(input_ids=ids_BT, labels=ids_BT, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps += 1
        if gone - said > 0.1:
            said = gone
            print(f"{gone:.0%}: step {steps}, loss {float(loss):.3f} nats a token", flush=True)
    print(f"{steps} steps, {steps * batch * CONTEXT:,} tokens", flush=True)


def save(model: Any, tokenizer: Any, held_out: Sequence[str], out: Path) -> None:
    """Write model/ in bfloat16 with its tokenizer, and texts.jsonl."""
    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    lines = (json.dumps({"text": text}) for text in held_out)
    (out / "texts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {out}/model and {out}/texts.jsonl")


if __name__ == "__main__":
    main()
