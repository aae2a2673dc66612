"""`test`, `[` and `[[`: True, False, or None if unknown."""

import re
from collections.abc import Sequence

from dlhealth.shell import patterns
from dlhealth.shell.sh.expansion import Expansion
from dlhealth.shell.sh.syntax import Word, literal
from dlhealth.shell.values import UNKNOWN, Truth, is_empty, is_known


class Conditional:
    """`[[ … ]]`: tokens to a truth."""

    def __init__(self, shell: Expansion, tokens: Sequence[Word | str]) -> None:
        self.shell = shell
        self.tokens = list(tokens)
        self.i = 0

    def truth(self) -> Truth:
        result = self.either()
        return result if self.i == len(self.tokens) else None

    def next(self, *texts: str) -> bool:
        if self.i < len(self.tokens) and self.tokens[self.i] in texts and isinstance(self.tokens[self.i], str):
            self.i += 1
            return True
        return False

    def either(self) -> Truth:
        result = self.both()
        while self.next("||"):
            other = self.both()
            result = True if True in (result, other) else None if None in (result, other) else False
        return result

    def both(self) -> Truth:
        result = self.one()
        while self.next("&&"):
            other = self.one()
            result = False if False in (result, other) else None if None in (result, other) else True
        return result

    def one(self) -> Truth:
        if self.next("!"):
            inner = self.one()
            return None if inner is None else not inner
        if self.next("("):
            result = self.either()
            return result if self.next(")") else None
        if self.i >= len(self.tokens) or isinstance(self.tokens[self.i], str):
            self.i = len(self.tokens) + 1
            return None
        left = self.tokens[self.i]
        self.i += 1
        if isinstance(left, str):
            return None
        operator = literal(left) or ""
        following = self.tokens[self.i] if self.i < len(self.tokens) else ""
        if len(operator) == 2 and operator[0] == "-" and not isinstance(following, str):
            self.i += 1
            return unary(self.shell, operator, self.shell.value(following))
        return self.binary(self.shell.value(left), following)

    def binary(self, left: str, following: Word | str) -> Truth:
        operator = following if isinstance(following, str) else literal(following) or ""
        if operator not in ("=", "==", "!=", "=~", "<", ">") and not re.fullmatch(r"-[a-z]{2}", operator):
            empty = is_empty(left)
            return None if empty is None else not empty
        self.i += 1
        right = self.tokens[self.i] if self.i < len(self.tokens) else ""
        self.i += 1
        if isinstance(right, str):
            return None
        if operator in ("=", "==", "!="):
            result = patterns.matches(self.shell.pattern(right), left)
            return None if result is None else result is (operator != "!=")
        return compare(operator, left, self.shell.value(right))


def unary(shell: Expansion, operator: str, value: str) -> Truth:
    """The tests with one operand."""
    if operator in ("-n", "-z"):
        empty = is_empty(value)
        return None if empty is None else empty is (operator == "-z")
    if operator == "-t":
        return shell.session.terminal
    if operator == "-v" and is_known(value):
        known = shell.state.get(value).value
        return None if known == UNKNOWN else known is not None
    if operator in ("-O", "-G", "-N", "-w", "-u", "-g", "-k", "-o", "-R", "-v"):
        return None
    return shell.session.test_file(operator, value)


def compare(operator: str, left: str, right: str) -> Truth:
    """The tests with two operands, but for patterns."""
    if not (is_known(left) and is_known(right)):
        return None
    if operator in ("=", "=="):
        return left == right
    if operator == "!=":
        return left != right
    numbers = {
        "-eq": int.__eq__,
        "-ne": int.__ne__,
        "-lt": int.__lt__,
        "-le": int.__le__,
        "-gt": int.__gt__,
        "-ge": int.__ge__,
    }
    if operator in numbers and all(re.fullmatch(r"-?\d{1,15}", text) for text in (left, right)):
        return bool(numbers[operator](int(left), int(right)))
    return None


def test(shell: Expansion, arguments: list[str]) -> Truth:
    """`test` as POSIX defines it by the number of arguments; -a and -o from left to right."""
    count = len(arguments)
    if count == 0:
        return False
    if count == 1:
        empty = is_empty(arguments[0])
        return None if empty is None else not empty
    if count == 3 and arguments[1] in ("=", "==", "!=", "-eq", "-ne", "-lt", "-le", "-gt", "-ge"):
        if arguments[1] == "==" and shell.dialect == "zsh":
            return None
        if arguments[1] == "==" and shell.dialect == "sh":
            return False  # dash: unexpected operator
        if arguments[1][0] == "-" and any(
            is_known(a) and not re.fullmatch(r"\s*-?\d{1,15}\s*", a) for a in arguments[::2]
        ):
            return False if shell.dialect != "zsh" else None  # not a number: an error
        return compare(arguments[1], arguments[0], arguments[2])
    if arguments[0] == "!":
        inner = test(shell, arguments[1:])
        return None if inner is None else not inner
    if count == 2:
        return unary(shell, *arguments) if re.fullmatch("-[a-zA-Z]", arguments[0]) else None
    for operator in ("-o", "-a"):
        if operator in arguments[1:-1]:
            middle = arguments.index(operator, 1)
            left, right = test(shell, arguments[:middle]), test(shell, arguments[middle + 1 :])
            decisive = operator == "-o"
            if decisive in (left, right):
                return decisive
            return None if None in (left, right) else not decisive
    return None
