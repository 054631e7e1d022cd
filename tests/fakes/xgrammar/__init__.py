"""xgrammar 0.1 as far as it tells whether a grammar compiles; a mistake is a RuntimeError."""

from _forms import compile_form


class Grammar:
    """A compiled grammar."""

    @staticmethod
    def from_json_schema(schema: str) -> "Grammar":
        return _compile("json", schema)

    @staticmethod
    def from_regex(regex_string: str) -> "Grammar":
        return _compile("regex", regex_string)

    @staticmethod
    def from_ebnf(ebnf_string: str) -> "Grammar":
        return _compile("grammar", ebnf_string)


def _compile(kind: str, text: str) -> Grammar:
    if not isinstance(text, str):
        raise TypeError("a grammar is a str")
    compile_form(kind, text)
    return Grammar()
