"""The Hub protocol: doors for the unmodified clients `hf`, `huggingface_hub`, `peft` and `transformers`."""
