"""Thinking budgets: what is forced, and when, against a reference that reads token by token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampler_references import forced_token
from sampling_rows import Row, make_table, run_step

from octavo.base.errors import RequestError
from octavo.messages.params import SamplingParams
from octavo.messages.samplers import ThinkingBudget, prompt_opens_reasoning
from octavo.worker.sampling.sampler import Sampler

VOCAB = 30
START, END = [20], [21, 22]


def thinking_row(output, budget=3, start=START, end=END, is_open=False, prompt=(1, 2), **params):
    wish = ThinkingBudget(
        start_token_ids=list(start), end_token_ids=list(end), budget=budget, is_open=is_open
    )
    return Row(
        params=SamplingParams(**{"temperature": 0.0, "thinking_budget": wish, **params}),
        prompt=list(prompt),
        output=list(output),
    )


def chosen(rows):
    """The tokens that follow, where the model would always say 7."""
    sampler = Sampler(num_rows=16, vocab_size=VOCAB, device=torch.device("cpu"))
    for number, row in rows.items():
        sampler.add_row(number, row.params, row.key, [], row.tokens, len(row.prompt))
    logits = torch.zeros(len(rows), VOCAB)
    logits[:, 7] = 5.0
    step = run_step(sampler, logits, list(rows), make_table(rows))
    assert step.failed == {}
    return step.token_ids.tolist()


def continued(row, count):
    """The row's output, token after token."""
    for _ in range(count):
        row = Row(params=row.params, prompt=row.prompt, output=[*row.output, *chosen({0: row})])
    return row.output


def test_reasoning_that_began_in_the_prompt_ends_after_its_budget():
    assert continued(thinking_row([], is_open=True), 7) == [7, 7, 7, 21, 22, 7, 7]


def test_reasoning_that_begins_in_the_answer_is_counted_from_there():
    assert continued(thinking_row([5, 20]), 7) == [5, 20, 7, 7, 7, 21, 22, 7, 7]


def test_no_budget_at_all_ends_it_at_once():
    assert continued(thinking_row([], budget=0, is_open=True), 4) == [21, 22, 7, 7]


def test_reasoning_that_ended_by_itself_is_left_alone():
    assert continued(thinking_row([7, 21, 22], is_open=True), 4) == [7, 21, 22, 7, 7, 7, 7]


def test_without_reasoning_nothing_is_forced():
    assert continued(thinking_row([]), 6) == [7] * 6


def test_a_second_piece_has_a_budget_of_its_own():
    row = thinking_row([20, 7, 21, 22, 9, 20])
    assert continued(row, 6) == [20, 7, 21, 22, 9, 20, 7, 7, 7, 21, 22, 7]


def test_beginning_again_inside_does_not_start_the_count_anew():
    assert continued(thinking_row([20, 7, 20]), 3) == [20, 7, 20, 7, 21, 22]


def test_a_prompt_with_the_marks_in_it_changes_nothing():
    assert continued(thinking_row([], prompt=(20, 7, 7, 7, 7)), 3) == [7] * 3


@pytest.mark.parametrize(
    "other",
    [
        {"allowed_token_ids": [7]},
        {"bad_words_token_ids": [[21]]},
        {"logit_bias": {21: -100.0}},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1.0, "xtc_probability": 1.0, "xtc_threshold": 0.0},
        {"presence_penalty": 2.0},
    ],
    ids=str,
)
def test_a_forced_end_is_stronger_than_any_other_wish(other):
    assert continued(thinking_row([7, 7, 7], is_open=True, **other), 2) == [7, 7, 7, 21, 22]


def test_neighbours_are_not_touched():
    rows = {
        4: thinking_row([7, 7, 7], is_open=True),
        2: Row(params=SamplingParams(temperature=0.0), prompt=[1], output=[7, 7, 7]),
        9: thinking_row([7], is_open=True, end=[25], budget=1),
        1: thinking_row([20, 20, 20, 20], start=[20, 20], end=[3, 4, 5], budget=1),
    }
    assert chosen(rows) == [21, 7, 25, 4]


TOKENS = st.sampled_from([1, 7, 20, 21])
MARKS = st.lists(TOKENS, min_size=1, max_size=2)


@st.composite
def thinking_rows(draw):
    end = draw(MARKS)
    start = draw(MARKS.filter(lambda mark: mark[-1] not in end and end[-1] not in mark))
    return thinking_row(
        draw(st.lists(TOKENS, max_size=14)),
        budget=draw(st.integers(0, 5)),
        start=start,
        end=end,
        is_open=draw(st.booleans()),
    )


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(thinking_rows(), min_size=1, max_size=4))
def test_any_output_equals_the_reference(rows):
    # Only outputs that can come about: nothing but the end follows once the budget is used up.
    for row in rows:
        wish = row.params.thinking_budget
        settled = []
        for token in row.output:
            forced = forced_token(
                settled,
                start=wish.start_token_ids,
                end=wish.end_token_ids,
                budget=wish.budget,
                is_open=wish.is_open,
            )
            settled.append(token if forced is None else forced)
        row.output[:] = settled
    found = chosen(dict(enumerate(rows)))
    for row, token in zip(rows, found, strict=True):
        wish = row.params.thinking_budget
        forced = forced_token(
            row.output,
            start=wish.start_token_ids,
            end=wish.end_token_ids,
            budget=wish.budget,
            is_open=wish.is_open,
        )
        assert token == (7 if forced is None else forced)


def test_whether_a_prompt_opens_reasoning():
    assert prompt_opens_reasoning([1, 20, 5], START, END)
    assert not prompt_opens_reasoning([20, 5, 21, 22, 9], START, END)
    assert prompt_opens_reasoning([20, 5, 21, 22, 9, 20], START, END)
    assert prompt_opens_reasoning([20, 5, 21], START, END)
    assert not prompt_opens_reasoning([], START, END)
    assert not prompt_opens_reasoning([1, 2], [], END)


@pytest.mark.parametrize(
    "wish",
    [
        {"budget": -1, "end_token_ids": [1]},
        {"budget": 1, "end_token_ids": []},
        {"budget": 1, "end_token_ids": [VOCAB]},
        {"budget": 1, "end_token_ids": [1], "start_token_ids": list(range(17))},
    ],
)
def test_wrong_wishes_are_refused(wish):
    with pytest.raises(RequestError) as caught:
        SamplingParams(thinking_budget=ThinkingBudget(**wish)).check(VOCAB)
    assert caught.value.param.startswith("thinking_budget")
