"""Few-shot LoRA composition: torch, peft and nevergrad, and no Django."""
