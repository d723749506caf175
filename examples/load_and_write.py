"""Load a folder that `narrows compress` wrote with transformers' own from_pretrained, and let it write.

python examples/load_and_write.py smollm2-narrow "The strait between the two islands is"
"""

from __future__ import annotations

import sys

from transformers import AutoModelForCausalLM, AutoTokenizer

import narrows.models  # noqa: F401 (registers the format; without it transformers refuses the folder)


def main(folder: str, prompt: str) -> None:
    """Print the prompt and 40 more tokens, always the likeliest."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt, return_tensors="pt")
    written = model.generate(**ids, max_new_tokens=40, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    print(tokenizer.decode(written[0], skip_special_tokens=True))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
