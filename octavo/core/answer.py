"""A worker's answer to a step: whether it fits the step, and what it says of prompts."""

from __future__ import annotations

from octavo.base.errors import EngineError
from octavo.core.in_flight import StepRecord
from octavo.messages.result import StepOutput


def check_answer(record: StepRecord, output: StepOutput) -> None:
    """Refuse an answer that does not belong to the step: a silent gap would hang a request for ever."""
    if output.step != record.output.step:
        raise EngineError(f"The worker answered step {output.step} instead of {record.output.step}.")
    if output.forced and not output.forced.keys() <= set(output.rows):
        raise EngineError("The worker appended to rows that were not sampled for.")
    is_plain = not (output.failed or output.prompt_logprobs)
    if is_plain and len(output.token_ids) == len(output.rows) and output.rows == list(record.sampling):
        return  # As nearly always: in the step's own order.
    answered = set(output.rows)
    if len(answered) != len(output.rows) or len(output.rows) != len(output.token_ids):
        raise EngineError("The worker's answer does not have one token for each row.")
    if answered != record.sampling.keys() - output.failed.keys():
        raise EngineError("The worker sampled for other rows than the step asked for.")
    if (output.failed or output.prompt_logprobs) and not (
        output.failed.keys() | output.prompt_logprobs.keys()
    ) <= set(record.output.rows):
        raise EngineError("The worker reports on rows that were not in the step.")


def gather_prompt_logprobs(record: StepRecord, output: StepOutput) -> None:
    """Give each request the prompt positions that this step reports."""
    places = record.places()
    for row, entries in output.prompt_logprobs.items():
        request = record.requests[places[row]]
        if request not in record.forgotten:
            request.add_prompt_logprobs(record.starts[places[row]], entries)
