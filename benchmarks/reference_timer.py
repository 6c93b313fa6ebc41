"""Runs inside the reference's environment: loads once, then times searches of `lorahub.algorithm`.

Called by benchmarks/engine.py as `python reference_timer.py REQUEST.json`; it answers every line, a number
of trials, with a JSON object.
"""

import copy
import json
import os
import random
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lorahub.algorithm as reference
import nevergrad as ng
import numpy
import torch


def main(request_file: str) -> None:
    # Its progress bars and prints go elsewhere; our answers have this pipe to themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    request = json.loads(Path(request_file).read_text())
    torch.set_num_threads(request["threads"])
    clock = time.process_time if request["clock"] == "cpu" else time.perf_counter

    # Without the copy all cached modules may share the tensors of the last one; fixed upstream on 2023-11-01.
    state_dict = reference.get_peft_model_state_dict
    reference.get_peft_model_state_dict = lambda model: copy.deepcopy(state_dict(model))

    base_s: list[float] = []  # of the base model and of its tokenizer
    for name in ("AutoModelForSeq2SeqLM", "AutoTokenizer"):
        whole = getattr(reference, name).from_pretrained
        setattr(reference, name, SimpleNamespace(from_pretrained=timed(whole, clock, base_s)))
    started = clock()
    model, tokenizer, cache = reference.load_base_model_and_lora_modules(request["modules"], request["base"])
    load_s = clock() - started
    inputs = [example["input"] for example in request["examples"]]
    outputs = [example["output"] for example in request["examples"]]
    dataset = reference.load_dataset(inputs, outputs, tokenizer)
    answers.write(json.dumps({"load_s": load_s, "modules_s": load_s - sum(base_s)}) + "\n")
    for line in sys.stdin:
        answers.write(
            json.dumps(search(model, cache, dataset, clock, seed=request["seed"], budget=int(line))) + "\n"
        )


def timed(work, clock, into: list):
    def wrapped(*args, **kwargs):
        started = clock()
        try:
            return work(*args, **kwargs)
        finally:
            into.append(clock() - started)

    return wrapped


def search(model, cache, dataset, clock, *, seed: int, budget: int) -> dict:
    """The search as `lorahub_learning` does it, without its loading and its merge at the end."""
    random.seed(seed)
    numpy.random.seed(seed)
    n = len(cache)
    score = partial(
        reference.get_score,
        model=model,
        cache=cache,
        example_dataset=dataset,
        batch_size=None,
        get_loss=reference.default_get_loss,
        get_regular=reference.default_l1_regularization,
    )
    started = clock()
    array = ng.p.Array(init=[0] * n, upper=[1.5] * n, lower=[-1.5] * n)
    optimizer = ng.optimizers.NGOpt(parametrization=array, budget=budget)
    recommendation = optimizer.minimize(score, verbosity=0)
    return {"search_s": clock() - started, "weights": [float(w) for w in recommendation.value]}


if __name__ == "__main__":
    main(sys.argv[1])
