"""What was found beside everything it has to be better than, on rows that no search has seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from compose.engine import evaluation, export, metrics, options, verdicts
from compose.engine.bank import build_bank
from compose.engine.errors import EmptyExample, ExamplesTooLong
from compose.engine.keeping import Once, once
from compose.engine.methods import METHODS, Method, Vector
from compose.engine.mixing import EXACT, Mix, Mixer
from compose.engine.scoring import Row
from compose.engine.searching import Found, Searches
from compose.engine.types import Example, OptionScores, Prediction, Request, Score
from compose.engine.wording import GIVE_TEST_ROWS

# Leave-one-out runs a search for every example; beyond this many the examples are left out in fifths.
_MOST_SINGLE_FOLDS = 10
_FOLDS_OTHERWISE = 5
# Answers of the mix that an adapter of a lower rank or a shorter float type is written of.
_AS_MIXED = "as mixed"


@dataclass
class Contestant:
    """A method that is scored, and the weights it found on all examples."""

    method: Method
    weights: Vector
    trials: int


@dataclass
class Comparison:
    """Every contestant and the baselines on the test rows, or, without any, on examples left out of their searches."""

    searches: Searches
    notes: list[str]  # of the result; more are added
    contestants: list[Contestant] = field(default_factory=list)
    option_scores: OptionScores | None = None  # after `scores`, where the answers are a small closed set
    written: dict[Mix, export.Written] = field(
        default_factory=dict
    )  # the mix that is kept, if it was scored as written
    _exported: Mixer | None = None  # after `scores`, where what is written acts otherwise than the mix
    _is_cut: bool = False  # whether that has a lower rank

    def enter(self, method: Method, found: Found) -> None:
        """What was asked for, and LoraHub as published beside another method, where the modules allow its mix."""
        most = len(found.trials) if found.stopped_early else self.searches.request.budget
        self.contestants.append(Contestant(method, found.weights, most))
        lorahub, prepared = METHODS["lorahub"], self.searches.prepared
        if method.name == lorahub.name:
            return
        if prepared.bank.paper_problem:
            self.notes.append(f"LoraHub was not measured beside it: {prepared.bank.paper_problem}.")
            return
        everything, most = list(range(len(prepared.rows))), lorahub.usual_budget
        self.searches.observer.on_stage(
            "search", f"{lorahub.name} beside it, at most {most} trials", trials=most
        )
        tell = partial(self._tell_trials, 0, most)
        [weights] = self.searches.on_folds(lorahub, [everything], trials_each=most, on_trials=tell)
        self.contestants.append(Contestant(lorahub, weights, most))

    def scores(self, test_rows: list[Row]) -> tuple[list[Score], list[Prediction], str]:
        """Each by the request's metric, then by exact match; the answers; a sentence. Raises Cancelled, OutOfMemory."""
        request, prepared, audition = self.searches.request, self.searches.prepared, self.searches.audition
        if request.test:
            asked = self._held_out_questions(test_rows)
            rows, examples, split = test_rows, list(request.test), "held_out"
        elif len({example.input.strip() for example in request.examples}) > 1:
            asked = self._left_out_questions()
            rows, examples, split = prepared.rows, list(request.examples), "leave_one_out"
        else:
            return (
                [],
                [],
                f"Not scored: examples of one input cannot be both shown and held out. {GIVE_TEST_ROWS}"
                if len(request.examples) > 1
                else f"Not scored: one example cannot be both shown and held out. {GIVE_TEST_ROWS}",
            )
        outputs: list[dict[str, str]] = [{} for _ in examples]
        for question, text in self._answers(asked, rows):
            outputs[question.row][question.method] = text.strip()
        if far := evaluation.out_of_reach(rows):
            verb = "is" if far == 1 else "are"
            self.notes.append(
                f"Answers are written up to {evaluation.LONGEST_ANSWER} tokens; of the {len(rows)} expected ones {far} {verb} "
                "longer, so that no method can get the whole of it."
            )
        as_mixed = [output.pop(_AS_MIXED, None) for output in outputs]
        predictions = [
            Prediction(example.input, example.output, output)
            for example, output in zip(examples, outputs, strict=True)
        ]
        expected = [prediction.expected for prediction in predictions]
        names = list(dict.fromkeys(question.method for question in asked))
        values: dict[str, dict[str, list[float]]] = {
            metric: {
                name: metrics.values_of_rows(metric, [p.outputs[name] for p in predictions], expected)
                for name in names
            }
            for metric in dict.fromkeys((request.metric, metrics.EXACT_MATCH))
        }
        scores = [
            verdicts.score_of(name, metric, values[metric][name], split=split)
            for metric in values
            for name in names
        ]
        chosen = values[request.metric]
        if self._exported is not None:
            before = metrics.values_of_rows(request.metric, [text or "" for text in as_mixed], expected)
            self.notes.append(_cost(request, before, chosen[request.method], is_cut=self._is_cut))
        if split == "held_out":
            self.option_scores = self._by_options(values[metrics.EXACT_MATCH])
        # With examples left out in turn it may be another one each time.
        single = prepared.bank.names[audition.best()] if split == "held_out" else ""
        said = verdicts.verdict(request.method, chosen, metric=request.metric, split=split, single=single)
        return scores, predictions, said

    def _answers(
        self, asked: list[evaluation.Question], rows: list[Row]
    ) -> Iterator[tuple[evaluation.Question, str]]:
        """Every question with its answer. What was asked for answers as the adapter that is written of it.

        Where writing changes the mix, its own answers come as well, as those of `_AS_MIXED`.
        """
        request, prepared = self.searches.request, self.searches.prepared
        written = self._as_written([q for q in asked if q.method == request.method])
        if written:
            asked = [replace(q, method=_AS_MIXED) if q.method == request.method else q for q in asked]
        limit, total, before = evaluation.answer_limit(rows), len(asked) + len(written), 0
        self._tell(0, total, "answers")
        # The mix of a written one says only which of those that are written it is.
        of_written = list(
            dict.fromkeys((q.mix.kind, q.mix.mixing_weights) for q in asked if q.method == _AS_MIXED)
        )
        for name, mixer, questions in (
            ("answers", prepared.mixer, asked),
            (f"answers as {of_written} are written", self._exported, written),
        ):
            if not questions or mixer is None:
                continue
            texts = evaluation.answer(
                prepared.base,
                mixer,
                questions,
                max_new_tokens=limit,
                once=self._once(name),
                on_batch=lambda done, before=before: self._tell(before + done, total, "answers"),  # type: ignore[misc]
            )
            before += len(questions)
            yield from zip(questions, texts, strict=True)

    def _as_written(self, mine: list[evaluation.Question]) -> list[evaluation.Question]:
        """The same questions to what is written of their mixes; none where writing changes nothing."""
        prepared, form = self.searches.prepared, self.searches.request.export
        mixes = list(dict.fromkeys(question.mix for question in mine))
        if not any(export.is_lossy(prepared.modules, mix, form) for mix in mixes):
            return []
        kept = Mix(self.contestants[0].method.mix, self.contestants[0].weights)
        written = []
        for number, mix in enumerate(mixes, start=1):
            in_form = export.in_form(prepared.modules, mix, form)
            self._is_cut |= in_form.is_cut
            if mix == kept:
                self.written[mix] = in_form
            written.append(export.as_exported(prepared.modules, mix, in_form, name=f"exported {number}"))
        bank = build_bank(written, device=prepared.base.device)
        self._exported = Mixer(prepared.base, bank)
        one = {mix: tuple(float(mix == other) for other in mixes) for mix in mixes}
        return [replace(question, mix=Mix(EXACT, one[question.mix])) for question in mine]

    def _by_options(self, hits: dict[str, list[float]]) -> OptionScores | None:
        """The same mixes held to the options, where the answers are a small closed set."""
        request, prepared = self.searches.request, self.searches.prepared
        found = options.closed_set(request.examples, request.test)
        if found is None:
            return None
        try:
            return options.score(
                prepared.base,
                prepared.mixer,
                found,
                request.test,
                self._mixes(self._found(), self.searches.audition.best()),
                ours=request.method,
                written={name: [bool(value) for value in own] for name, own in hits.items()},
                exported=self._exported,
                once=self._once("options"),
                on_row=partial(self._tell, counted="rows"),
            )
        except (EmptyExample, ExamplesTooLong) as error:
            # An option that nobody has to answer with; the search and its scores are none the worse.
            self.notes.append(f"The options were not compared. {error.message}")
            return None

    def _once(self, what: str) -> Once:
        return once(self.searches.request, self.searches.observer, what)

    def _tell(self, done: int, total: int, counted: str) -> None:
        self.searches.observer.on_progress(done, total, counted)
        if done < total:
            self.searches.observer.checked()

    def _tell_trials(self, before: int, total: int, done: int) -> None:
        # A search may go a little over its budget, to the end of a batch.
        self.searches.observer.on_progress(min(before + done, total), total, "trials")

    def _found(self) -> list[tuple[Method, Vector]]:
        return [(each.method, each.weights) for each in self.contestants]

    def _held_out_questions(self, rows: list[Row]) -> list[evaluation.Question]:
        request, base = self.searches.request, self.searches.prepared.base
        texts = [example.input for example in request.test]
        asked = []
        for name, mix in self._mixes(self._found(), self.searches.audition.best()).items():
            asked += evaluation.questions(base, name, mix, texts)
        prompts = [evaluation.in_context_prompt(request.examples, text) for text in texts]
        return asked + self._in_context(prompts, rows)

    def _left_out_questions(self) -> list[evaluation.Question]:
        """Every example asked of what is found without it; the folds' searches run in lockstep."""
        examples, base = self.searches.request.examples, self.searches.prepared.base
        everything = range(len(examples))
        folds = _folds(examples)
        if len(folds) < len(examples):
            self.notes.append(
                f"The estimate without test rows leaves the examples out in {len(folds)} parts, not one by one; "
                "those with the same input together."
            )
        kept = [[index for index in everything if index not in fold] for fold in folds]
        # A method may need fewer than it is given.
        most = [min(each.trials, self.searches.most_trials(each.method)) for each in self.contestants]
        weights, before, total = [], 0, sum(most)
        for each, needed in zip(self.contestants, most, strict=True):
            tell = partial(self._tell_trials, before, total)
            weights.append(self.searches.on_folds(each.method, kept, trials_each=each.trials, on_trials=tell))
            before += needed
        asked, prompts = [], {}
        for number, (fold, rest) in enumerate(zip(folds, kept, strict=True)):
            found = [(each.method, own[number]) for each, own in zip(self.contestants, weights, strict=True)]
            for index in fold:
                text = examples[index].input
                prompts[index] = evaluation.in_context_prompt([examples[i] for i in rest], text)
                for name, mix in self._mixes(found, self.searches.audition.best(rest)).items():
                    asked += [_at_row(q, index) for q in evaluation.questions(base, name, mix, [text])]
        return asked + self._in_context([prompts[index] for index in everything], self.searches.prepared.rows)

    def _mixes(self, found: Sequence[tuple[Method, Vector]], best: int) -> dict[str, Mix]:
        """What answers for each method; a single module always acts as it is, which is the exact mix."""
        n, left_out = self.searches.prepared.bank.size, self.searches.prepared.sizes.left_out
        share = 1.0 / (n - len(left_out))
        return {
            "zero_shot": Mix(EXACT, (0.0,) * n),
            "best_single": Mix(EXACT, tuple(float(index == best) for index in range(n))),
            "uniform": Mix(found[0][0].mix, tuple(0.0 if index in left_out else share for index in range(n))),
            **{method.name: Mix(method.mix, weights) for method, weights in reversed(found)},
        }

    def _in_context(self, prompts: list[str], rows: list[Row]) -> list[evaluation.Question]:
        """Questions to the bare base with the examples in front; none when they do not fit its context.

        `rows` are what is asked, which say how long answers may be.
        """
        prepared = self.searches.prepared
        base = prepared.base
        asked = evaluation.questions(base, "in_context", Mix(EXACT, (0.0,) * prepared.bank.size), prompts)
        room = evaluation.answer_limit(rows) if base.kind == "causal" else 0
        longest = max(len(question.prompt) for question in asked) + room
        if longest <= base.context_tokens:
            return asked
        self.notes.append(
            f"In-context was not measured: the examples with a question take {longest} tokens, "
            f"the base model takes {base.context_tokens}."
        )
        return []


def _cost(request: Request, before: list[float], after: list[float], *, is_cut: bool) -> str:
    """What the mix loses by the form that was asked for, which cuts it, rounds it, or both."""
    form, metric = request.export, request.metric
    how = [f"cut to rank {form.rank}"] if is_cut else []
    how += [] if form.dtype == "float32" else [f"in {form.dtype}"]
    return (
        f"The scores are those of the adapter as it is written, {' '.join(how)}: {verdicts.in_words(metric, after)}; "
        f"the mix itself gets {verdicts.short(metric, before)}."
    )


def _folds(examples: Sequence[Example]) -> list[list[int]]:
    """Examples to leave out together. Those with one input are: left out alone, the others would have told its answer."""
    alike: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        alike.setdefault(example.input.strip(), []).append(index)
    groups = list(alike.values())
    if len(groups) <= _MOST_SINGLE_FOLDS:
        return groups
    parts = [groups[start::_FOLDS_OTHERWISE] for start in range(_FOLDS_OTHERWISE)]
    return [sorted(index for group in part for index in group) for part in parts]


def _at_row(question: evaluation.Question, row: int) -> evaluation.Question:
    return evaluation.Question(question.method, row, question.mix, question.prompt)
