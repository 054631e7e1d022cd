"""Translates a GBNF grammar to llguidance's dialect of Lark.

A rule that is not recursive becomes a terminal, that is a regular expression, with exactly the same meaning. In a
recursive rule, as much as possible becomes one terminal, and the lexer matches terminals greedily. So a recursive
grammar may allow less than the original, but never more.
"""

from collections.abc import Iterator, Mapping, Sequence

from doherty_engine.constraints._gbnf import Alternation, Concatenation, Node, RegexNode, Repeat, RuleName, references


def write_lark(rules: Mapping[str, Node]) -> str:
    """Writes the grammar; its rule `root` matches the whole answer."""
    return _LarkWriter(rules).write()


class _LarkWriter:
    """Writes one grammar. Terminals are named T0, T1, ..., all other rules t0, t1, ..."""

    def __init__(self, rules: Mapping[str, Node]) -> None:
        reachable = _reachable(rules, "root")
        self._rules = {name: rules[name] for name in rules if name in reachable}
        recursive = {name for name in self._rules if name in _reachable(rules, *references(rules[name]))}
        # A rule that refers to a recursive rule cannot be a terminal either.
        grammatical = {name for name in self._rules if recursive & ({name} | _reachable(rules, name))}
        self._names = {name: f"{'t' if name in grammatical else 'T'}{place}" for place, name in enumerate(self._rules)}
        self._grammatical = grammatical
        self._groups: list[str] = []

    def write(self) -> str:
        lines = [f"{self._names[name]}: {self._body(name)}" for name in self._rules]
        return "\n".join([f"start: {self._names['root']}", *lines, *self._groups])

    def _body(self, name: str) -> str:
        body = self._rules[name]
        return self._grammar(body) if name in self._grammatical else self._terminal(body)

    def _terminal(self, node: Node) -> str:
        match node:
            case RegexNode(pattern):
                return f"/{pattern}/" if pattern else '""'
            case RuleName(name):
                return self._names[name]
            case Repeat(item, suffix):
                return f"({self._terminal(item)}){suffix}"
            case Concatenation(items):
                return " ".join(f"({self._terminal(item)})" for item in items) or '""'
            case Alternation(items):
                return " | ".join(f"({self._terminal(item)})" for item in items)

    def _grammar(self, node: Node) -> str:
        if self._is_terminal(node):
            return self._as_terminal(node)
        match node:
            case Repeat(item, suffix):
                return f"({self._grammar(item)}){suffix}"
            case Concatenation(items):
                return " ".join(f"({self._grammar(run)})" for run in self._runs(items))
            case Alternation(items):
                return " | ".join(f"({self._grammar(item)})" for item in items)
            case RuleName(name):
                return self._names[name]
            case RegexNode():
                raise AssertionError("a literal is a terminal")

    def _runs(self, items: Sequence[Node]) -> Iterator[Node]:
        """Joins adjacent terminals, so that the lexer does not decide where one ends and the next begins."""
        run: list[Node] = []
        for item in items:
            if self._is_terminal(item):
                run.append(item)
                continue
            if run:
                yield Concatenation(tuple(run))
                run = []
            yield item
        if run:
            yield Concatenation(tuple(run))

    def _as_terminal(self, node: Node) -> str:
        name = f"G{len(self._groups)}"
        self._groups.append(f"{name}: {self._terminal(node)}")
        return name

    def _is_terminal(self, node: Node) -> bool:
        return not any(name in self._grammatical for name in references(node))


def _reachable(rules: Mapping[str, Node], *starts: str) -> set[str]:
    """The names of all rules that can be reached from `starts`, including `starts`."""
    reached: set[str] = set()
    waiting = list(starts)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += references(rules[name])
    return reached
