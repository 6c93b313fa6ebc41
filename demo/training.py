"""Training the demo: a base from scratch on instructed rows, LoRA modules on top of it, and exact match.

Nothing here draws from the global random state except module initialisation, which each function seeds itself.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from demo.stories import Row

Progress = Callable[[int, int, float], None]  # (step, steps, loss)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train: AdamW, a short warm-up, then a cosine down to a tenth of the peak."""

    steps: int
    rows: int  # a step's batch
    peak_learning_rate: float
    warm_up_steps: int = 20

    def rate(self, step: int) -> float:
        """Share of the peak learning rate at `step`, 0-1."""
        if step < self.warm_up_steps:
            return (step + 1) / self.warm_up_steps
        done = (step - self.warm_up_steps) / max(1, self.steps - self.warm_up_steps)
        return 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2


def new_base(*, architecture: str, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """A small untrained model: "t5" with 1.2 M parameters or "llama" with 0.9 M."""
    torch.manual_seed(seed)
    special = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id if architecture == "t5" else None,
    }
    if architecture == "t5":
        return T5ForConditionalGeneration(
            T5Config(
                d_model=128,
                d_kv=32,
                d_ff=384,
                num_layers=3,
                num_decoder_layers=3,
                num_heads=4,
                dropout_rate=0.0,
                relative_attention_num_buckets=32,
                **special,
            )
        )
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            # With the usual 0.02 a model this narrow takes ten times as long to learn to look things up.
            initializer_range=0.08,
            bos_token_id=tokenizer.bos_token_id,
            **special,
        )
    )


def batch(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row], *, architecture: str) -> dict[str, Tensor]:
    """Padded input_ids, attention_mask and labels for the rows, (rows, length); -100 where nothing is learnt."""
    prompts = tokenizer([row.input for row in rows])["input_ids"]
    answers = tokenizer([row.output for row in rows], add_special_tokens=False)["input_ids"]
    answers = [[*answer, tokenizer.eos_token_id] for answer in answers]
    if architecture == "t5":
        inputs, labels = prompts, answers
    else:
        inputs = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        labels = [[-100] * len(prompt) + answer for prompt, answer in zip(prompts, answers, strict=True)]
    return {
        "input_ids": _padded(inputs, tokenizer.pad_token_id),
        "attention_mask": _padded([[1] * len(ids) for ids in inputs], 0),
        "labels": _padded(labels, -100),
    }


def _padded(lists: Sequence[Sequence[int]], filler: int) -> Tensor:
    longest = max(len(items) for items in lists)
    return torch.tensor([[*items, *[filler] * (longest - len(items))] for items in lists])


def train(
    model: PreTrainedModel | PeftModel,
    batches: Iterator[dict[str, Tensor]],
    schedule: Schedule,
    *,
    progress: Progress,
) -> None:
    """Train the model's trainable parameters in place."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=schedule.peak_learning_rate, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.rate)
    model.train()
    for step, one in enumerate(islice(batches, schedule.steps), start=1):
        loss = model(**one).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
        progress(step, schedule.steps, loss.item())
    model.eval()


def with_lora(base: PreTrainedModel, *, architecture: str, name: str, seed: int) -> PeftModel:
    """The base, frozen, under a fresh rank-8 LoRA on the query and value projections."""
    torch.manual_seed(seed)
    config = LoraConfig(
        r=8,
        lora_alpha=16,
        lora_dropout=0.0,
        target_modules=["q", "v"] if architecture == "t5" else ["q_proj", "v_proj"],
        task_type=TaskType.SEQ_2_SEQ_LM if architecture == "t5" else TaskType.CAUSAL_LM,
        base_model_name_or_path=name,
    )
    # PEFT would rather write the folder the base was loaded from, which is this machine's.
    base.name_or_path = name
    return get_peft_model(base, config)


@torch.inference_mode()
def answers(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    inputs: Sequence[str],
    *,
    architecture: str,
    rows: int = 100,
) -> list[str]:
    """Greedy answers, in order, `rows` at a time."""
    written: list[str] = []
    for start in range(0, len(inputs), rows):
        prompts = tokenizer(
            list(inputs[start : start + rows]), padding=True, padding_side="left", return_tensors="pt"
        )
        tokens = model.generate(**prompts, max_new_tokens=8, do_sample=False)
        if architecture == "llama":
            tokens = tokens[:, prompts["input_ids"].shape[1] :]
        written += tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return [text.strip() for text in written]


def exact_match(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[Row],
    *,
    architecture: str,
) -> float:
    """Share of rows whose greedy answer is the expected text, 0-1."""
    written = answers(model, tokenizer, [row.input for row in rows], architecture=architecture)
    return sum(text == row.output for text, row in zip(written, rows, strict=True)) / len(rows)
