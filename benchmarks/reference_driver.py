"""Runs inside the reference's environment: drives `lorahub.algorithm` and writes down what it did.

Called by record_reference.py as `python reference_driver.py REQUEST.json OUT.json`.
"""

import copy
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import lorahub.algorithm as reference
import torch


def main(request_file: str, out_file: str) -> None:
    request = json.loads(Path(request_file).read_text())
    inputs = [example["input"] for example in request["examples"]]
    outputs = [example["output"] for example in request["examples"]]

    # Without the copy all cached modules may share the tensors of the last one; fixed upstream on 2023-11-01.
    state_dict = reference.get_peft_model_state_dict
    reference.get_peft_model_state_dict = lambda model: copy.deepcopy(state_dict(model))

    trials: list[dict] = []
    score = reference.get_score

    def recorded_score(weights, *args, get_loss, **keywords):
        seen: list[float] = []

        def recorded_loss(dataset, model, batch_size):
            value = get_loss(dataset, model, batch_size)
            seen.append(value * len(dataset["input"]))  # back to the model's own batch mean
            return value

        objective = score(weights, *args, get_loss=recorded_loss, **keywords)
        trials.append(
            {"weights": rounded(weights), "loss": round(seen[0], 8), "objective": round(float(objective), 8)}
        )
        return objective

    reference.get_score = recorded_score
    started = time.perf_counter()
    weights, model, tokenizer = reference.lorahub_learning(
        lora_module_list=request["modules"],
        example_inputs=inputs,
        example_outputs=outputs,
        max_inference_step=request["budget"],
        model_name_or_path=request["base"],
        batch_size=None,
        seed=request["seed"],
    )
    seconds = time.perf_counter() - started
    record = {
        "modules": [Path(path).name for path in request["modules"]],
        "examples": request["examples"],
        "budget": request["budget"],
        "seed": request["seed"],
        "trials": trials,
        "mixing_weights": rounded(weights),
        "logits": first_logits(model.eval(), tokenizer, inputs, outputs),
        "seconds": round(seconds, 3),
        "versions": {
            name: version(name)
            for name in ("lorahub", "torch", "peft", "transformers", "nevergrad", "numpy", "scipy")
        },
    }
    Path(out_file).write_text(json.dumps(record) + "\n")


def rounded(weights) -> list[float]:
    """Short enough for a file in the repository, far closer than anything is compared."""
    return [round(float(weight), 8) for weight in weights]


def first_logits(model, tokenizer, inputs: list[str], outputs: list[str]) -> list[list[float]]:
    """Of the composed model, the logits of the first 16 words at every position of the first example."""
    batch = tokenizer(inputs[:1], return_tensors="pt")
    labels = tokenizer(outputs[:1], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels
        ).logits
    return [[round(value, 6) for value in row[:16].tolist()] for row in logits[0]]


if __name__ == "__main__":
    main(*sys.argv[1:])
