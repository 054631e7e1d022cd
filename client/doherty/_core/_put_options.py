"""How the less common parameters of a call get into its request."""

from typing import TYPE_CHECKING, Final

from doherty._core._prompt import TokenIds
from doherty._core._put import put
from doherty.v1.request_pb2 import Priority

if TYPE_CHECKING:
    from doherty._core._options import GenerateOptions
    from doherty.v1.request_pb2 import GenerateRequest

_PRIORITIES: Final = {"interactive": Priority.PRIORITY_INTERACTIVE, "batch": Priority.PRIORITY_BATCH}


def put_options(request: "GenerateRequest", options: "GenerateOptions") -> None:
    """Sets the fields of a request that the options name.

    Raises:
        TypeError: An option has a type that its field cannot take.
        ValueError: An option has a value that its field cannot hold, or contradicts another parameter.
    """
    put(request, model=options.model)
    put(
        request.sampling,
        top_k=options.top_k,
        min_p=options.min_p,
        frequency_penalty=options.frequency_penalty,
        presence_penalty=options.presence_penalty,
        repetition_penalty=options.repetition_penalty,
    )
    put(
        request.stopping,
        min_output_tokens=options.min_output_tokens,
        stop_token_ids=options.stop_token_ids or None,
        include_stop_text=options.include_stop_text or None,
        ignore_eos=options.ignore_eos or None,
    )
    put(request.output, token_ids=options.token_ids or None, top_logprobs=options.top_logprobs)
    _put_constraint(request, options)
    if options.priority is not None:
        if options.priority not in _PRIORITIES:
            raise ValueError(f"priority is one of {', '.join(_PRIORITIES)}, not {options.priority!r}.")
        request.priority = _PRIORITIES[options.priority]
    if options.continue_from is not None:
        _put_held_part(request, options.continue_from)


def _put_constraint(request: "GenerateRequest", options: "GenerateOptions") -> None:
    forms = {
        "schema": request.constraint.json_schema or None,
        "regex": options.regex,
        "grammar": options.grammar,
        "choices": options.choices,
    }
    given = [name for name, form in forms.items() if form is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other: an answer can be held to one form.")
    put(request.constraint, regex=options.regex, grammar=options.grammar)
    if options.choices is not None:
        request.constraint.choices.SetInParent()
        put(request.constraint.choices, choices=options.choices)


def _put_held_part(request: "GenerateRequest", held: str | TokenIds) -> None:
    """Sets the part of the answer that the caller holds; an empty one too, which is none."""
    request.continue_from.SetInParent()
    if not isinstance(held, TokenIds):
        put(request.continue_from, text=held)
    elif request.constraint.json_schema:
        raise ValueError("schema= reads the answer, and that needs the text of continue_from, not its token ids.")
    else:
        put(request.continue_from, token_ids=held.ids)
