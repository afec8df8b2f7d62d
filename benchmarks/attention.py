"""One training step with the fused and with the plain attention kernel, on this machine.

python -m benchmarks.attention --small
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.common import heading


def step_ms(attention: str, precision: torch.dtype, length: int, runs: int) -> list[float]:
    """Times forward and backward passes of 32 examples through 3 layers of 384."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=3000,
        hidden_size=384,
        num_hidden_layers=3,
        num_attention_heads=12,
        intermediate_size=1536,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForSequenceClassification(config).train()
    model.set_attn_implementation(attention)
    tokens = torch.randint(0, 3000, (32, length))
    mask = torch.ones_like(tokens)
    mask[::3, -2:] = 0
    times = []
    for run in range(-3, runs):
        start_s = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            logits = model(input_ids=tokens, attention_mask=mask).logits
        logits.float().square().mean().backward()
        model.zero_grad()
        if run >= 0:
            times.append(1e3 * (time.perf_counter() - start_s))
    return times


def main() -> None:
    """Prints medians and the spread of both kernels side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="10 steps each")
    parser.add_argument("--full", action="store_true", help="40 steps each")
    runs = 40 if parser.parse_args().full else 10
    heading("benchmarks.attention")
    print(f"{'precision':<11}{'length':>7}{'fused ms':>22}{'plain ms':>22}{'fused/plain':>13}")
    for precision in (torch.float32, torch.bfloat16):
        for length in (16, 64, 128):
            fused, plain = (step_ms(k, precision, length, runs) for k in ("sdpa", "eager"))
            cells = [
                f"{np.median(t):.1f} ({np.percentile(t, 10):.1f}..{np.percentile(t, 90):.1f})"
                for t in (fused, plain)
            ]
            ratio = np.median(fused) / np.median(plain)
            name = str(precision).removeprefix("torch.")
            print(f"{name:<11}{length:>7}{cells[0]:>22}{cells[1]:>22}{ratio:>13.2f}")


if __name__ == "__main__":
    main()
