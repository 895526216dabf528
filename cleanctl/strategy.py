"""The strategy language: text → a tree over rules → a kept set.

    expr    := term ("|" term)*            union
    term    := factor ("&" factor)*        intersection
    factor  := "~" factor | atom           complement
    atom    := "(" expr ")" | "intersection" | "union" | "vote:" K | "joint" | SCORER "." MECHANISM

`intersection`, `union` and `vote:K` speak of the four rules of the paper, `joint` is joint.posterior. An error points
at its column. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from cleanctl.errors import UsageError
from cleanctl.meant import meant
from cleanctl.registry import SCORERS

if TYPE_CHECKING:
    import numpy as np

MAX_DEPTH = 100  # brackets and ~ inside one another; each takes several calls of Python's limited stack
SHOWN = 60  # characters of a long strategy on each side of the column that an error points at
TOKEN = re.compile(r"\s*(?:(?P<symbol>[&|~()])|(?P<word>[A-Za-z_][\w.\-]*(?::\s*[\w.\-]*)?))")


@dataclass(frozen=True, order=True)
class Rule:
    """One scorer's word on each sample, and how it becomes yes or no."""

    scorer: str
    mechanism: str

    @property
    def name(self) -> str:
        return f"{self.scorer}.{self.mechanism}"


PAPER_RULES = tuple(Rule(s, m) for s in ("zeroshot", "logistic") for m in ("loss", "consistency"))


JOINT_RULE = Rule("joint", "posterior")
WITHOUT_PROMPTS = "logistic.consistency"  # the strategy to type where a store has none


@dataclass(frozen=True)
class Leaf:
    rule: Rule


@dataclass(frozen=True)
class Not:
    inner: Node


@dataclass(frozen=True)
class Vote:
    """At least `least` of `parts` hold; intersection and union are the two ends of it."""

    least: int
    parts: tuple[Node, ...]


Node = Leaf | Not | Vote


def parse(text: str) -> Node:
    """The tree of a strategy; UsageError with a caret under the column where it goes wrong."""
    return _Parser(text).whole()


def rules_of(node: Node) -> tuple[Rule, ...]:
    """The rules that a strategy needs, each once, in order of appearance."""
    if isinstance(node, Leaf):
        return (node.rule,)
    parts = (node.inner,) if isinstance(node, Not) else node.parts
    return tuple(dict.fromkeys(rule for part in parts for rule in rules_of(part)))


def evaluate(node: Node, keep: Mapping[Rule, np.ndarray]) -> np.ndarray:
    """(N,) bool from each rule's (N,) bool."""
    if isinstance(node, Leaf):
        return keep[node.rule]
    if isinstance(node, Not):
        return ~evaluate(node.inner, keep)
    votes_N: np.ndarray = sum(
        (evaluate(part, keep).astype("int32") for part in node.parts[1:]),
        start=(evaluate(node.parts[0], keep).astype("int32")),
    )
    return votes_N >= node.least


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, int]] = []
        position = 0
        while position < len(text.rstrip()):
            match = TOKEN.match(text, position)
            if match is None:
                column = position + len(text[position:]) - len(text[position:].lstrip())
                self.fail(f"{text[column]!r} has no meaning here", column)
            token = match.group("symbol") or match.group("word")
            self.tokens.append((token, match.end() - len(token)))
            position = match.end()
        self.place = self.depth = 0

    def whole(self) -> Node:
        if not self.tokens:
            self.fail("it is empty", 0)
        node = self.expression()
        if self.place < len(self.tokens):
            token, column = self.tokens[self.place]
            self.fail(f"{token!r} follows a complete expression; join the two with & or |", column)
        return node

    def expression(self) -> Node:
        return self.joined("|", self.term, union=True)

    def term(self) -> Node:
        return self.joined("&", self.factor, union=False)

    def joined(self, symbol: str, part: Callable[[], Node], *, union: bool) -> Node:
        parts = [part()]
        while self.peek() == symbol:
            self.place += 1
            parts.append(part())
        return parts[0] if len(parts) == 1 else Vote(1 if union else len(parts), tuple(parts))

    def factor(self) -> Node:
        if self.peek() == "~":
            return Not(self.inside(self.factor))
        return self.atom()

    def inside(self, part: Callable[[], Node]) -> Node:
        """What follows the token at hand, one level deeper."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"more than {MAX_DEPTH} brackets and ~ lie inside one another", self.tokens[self.place][1])
        self.place += 1
        node = part()
        self.depth -= 1
        return node

    def atom(self) -> Node:
        if self.place == len(self.tokens):
            self.fail("a rule is missing at the end", len(self.text.rstrip()))
        token, column = self.tokens[self.place]
        if token == "(":
            inner = self.inside(self.expression)
            if self.peek() != ")":
                self.fail("this bracket is not closed", column)
            self.place += 1
            return inner
        if token in "&|)":
            self.fail(f"a rule is missing before {token!r}", column)
        self.place += 1
        return self.named(token, column)

    def named(self, token: str, column: int) -> Node:
        leaves = tuple(Leaf(rule) for rule in PAPER_RULES)
        if token == "intersection":
            return Vote(len(leaves), leaves)
        if token == "union":
            return Vote(1, leaves)
        if token == JOINT_RULE.scorer:
            return Leaf(JOINT_RULE)
        if token.partition(":")[0] == "vote":
            return Vote(self.votes(token, column), leaves)
        return Leaf(self.rule(token, column))

    def votes(self, token: str, column: int) -> int:
        number = token.partition(":")[2].strip()
        if not number.isdecimal() or not 1 <= int(number) <= len(PAPER_RULES):
            self.fail(f"vote:K wants a K from 1 to {len(PAPER_RULES)}", column + min(len(token), 5))
        return int(number)

    def rule(self, token: str, column: int) -> Rule:
        scorer, dot, mechanism = token.partition(".")
        if scorer not in SCORERS:
            known = ("intersection", "union", "vote:K", *SCORERS.names())
            self.fail(f"{scorer!r} is neither a strategy nor a scorer{_meant(scorer, known)}", column)
        allowed = tuple(SCORERS.load(scorer).mechanisms)
        if not dot or mechanism not in allowed:
            said = f"{mechanism!r} is no mechanism of {scorer}" if mechanism else f"{scorer} wants a mechanism"
            self.fail(f"{said} ({', '.join(allowed)}){_meant(mechanism, allowed)}", column + len(scorer) + len(dot))
        return Rule(scorer, mechanism)

    def peek(self) -> str | None:
        return self.tokens[self.place][0] if self.place < len(self.tokens) else None

    def fail(self, what: str, column: int) -> NoReturn:
        first = max(0, column - SHOWN) if len(self.text) > 2 * SHOWN else 0
        shown = self.text[first : first + 2 * SHOWN]
        what += "" if what.endswith("?") else "."
        raise UsageError(
            f"--strategy cannot be read at column {column + 1}: {what}\n    {shown}\n    {' ' * (column - first)}^\n",
            do="Give intersection, union, vote:K, or rules such as zeroshot.loss joined by & | ~ and brackets.",
        )


def _meant(word: str, known: tuple[str, ...]) -> str:
    return meant(word, known).removesuffix(".")  # the sentence goes on
