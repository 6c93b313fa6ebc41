from pathlib import Path

import pytest

from demo import table
from demo.collection import T5


def test_the_published_examples_are_the_first_draw_and_others_differ_from_it():
    first, second = (table.case(T5, T5.held_out[0], draw) for draw in (1, 2))
    assert first.test == second.test
    assert first.few_shot != second.few_shot
    assert first == table.case(T5, T5.held_out[0], 1)


def test_lorahub_is_offered_twenty_modules_and_the_same_ones_every_time():
    one = table.case(T5, T5.held_out[0], 1)
    offered = table.pool(one)
    assert len({module.name for module in offered}) == table.POOL
    assert offered == table.pool(one)


def test_the_exact_search_finds_the_weights_that_lower_the_loss():
    def losses(*, weights: list[list[float]]) -> list[float]:
        return [(vector[0] - 0.7) ** 2 * 50 for vector in weights]

    found = table.search_exact(losses, 4, seed=1)
    assert found[0] == pytest.approx(0.7, abs=0.05)
    assert max(abs(weight) for weight in found[1:]) < 0.05


def test_a_line_of_the_table_is_the_mean_over_the_draws_that_measured_it():
    pairs = T5.held_out[:1]
    draws = [dict.fromkeys(table.METHODS, 0.5), dict.fromkeys(table.METHODS[:-1], 1.0)]
    found = {(pairs[0].key, number): scores for number, scores in enumerate(draws, start=1)}
    text = table.table(pairs, found, draws=2)
    assert f"| {pairs[0].key} | 0.75 | 0.75 | 0.75 | 0.75 | 0.75 | 0.50 |" in text
    assert "**mean of 1**" in text


def test_publishing_replaces_the_old_table_and_nothing_else(tmp_path: Path):
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- table: begin -->\nold\n<!-- table: end -->\nafter\n", encoding="utf-8")
    table.publish(page, "new")
    expected = "before\n<!-- table: begin -->\nnew\n<!-- table: end -->\nafter\n"
    assert page.read_text(encoding="utf-8") == expected
