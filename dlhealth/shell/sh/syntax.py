"""Parses start-up files as sh (dash), bash or zsh would.

What is not understood is a problem that is not `certain`; a certain one is an error that the shell itself reports.
"""

import bisect
import re
from functools import cache

from dlhealth.lazy import regex
from dlhealth.records import NamedTuple

_DEEPEST = 40
"""Levels of nesting. A start-up file has about five."""


class SyntaxProblem(NamedTuple):
    """Where the parser stopped. `line` counts from 1 and is where the construct begins."""

    line: int
    text: str
    certain: bool


class Text(NamedTuple):
    text: str
    quoted: bool


class Param(NamedTuple):
    """`${name…}`: `op` is "" for the plain value, "length", one of the POSIX operators with its `word`, or "other" for
    what only some shells have."""

    name: str
    op: str
    word: "Word"
    quoted: bool


class Output(NamedTuple):
    """A command substitution, or with `process` the name of a pipe (`<(…)`); `commands` is None if it could not be
    parsed."""

    commands: "tuple[Node, ...] | None"
    quoted: bool
    process: bool = False


class Opaque(NamedTuple):
    """Something that stands for unknown text."""

    quoted: bool


class Qualifier(NamedTuple):
    """What zsh's `folder(N-/)` has in its parentheses, at the end of a word."""

    flags: str


Part = Text | Param | Output | Opaque | Qualifier
Word = tuple[Part, ...]


class Assignment(NamedTuple):
    """`items` is None unless it is an array's; `subscript` is what the brackets of `name[…]=` have."""

    name: str
    append: bool
    word: Word
    items: tuple[Word, ...] | None
    subscript: str = ""


class Simple(NamedTuple):
    line: int
    assignments: tuple[Assignment, ...]
    words: tuple[Word, ...]


class Pipeline(NamedTuple):
    """One command or several; `negated` by `!`."""

    line: int
    commands: "tuple[Node, ...]"
    negated: bool


class Chain(NamedTuple):
    """Commands joined by && and ||; `links` are pairs of operator and command."""

    line: int
    first: "Node"
    links: "tuple[tuple[str, Node], ...]"


class Background(NamedTuple):
    line: int


class If(NamedTuple):
    line: int
    branches: "tuple[tuple[tuple[Node, ...], tuple[Node, ...]], ...]"
    otherwise: "tuple[Node, ...]"


class For(NamedTuple):
    """`words` is None if it goes over the positional parameters."""

    line: int
    name: str
    words: tuple[Word, ...] | None
    body: "tuple[Node, ...]"


class While(NamedTuple):
    line: int
    until: bool
    condition: "tuple[Node, ...]"
    body: "tuple[Node, ...]"


class Case(NamedTuple):
    """Each arm has its patterns, its commands, and the operator that ends it (";;", ";&" or ";;&")."""

    line: int
    word: Word
    arms: "tuple[tuple[tuple[Word, ...], tuple[Node, ...], str], ...]"


class Group(NamedTuple):
    line: int
    body: "tuple[Node, ...]"


class Subshell(NamedTuple):
    line: int
    body: "tuple[Node, ...]"


class Function(NamedTuple):
    line: int
    name: str
    body: "Node"


class Test(NamedTuple):
    """`[[ … ]]`: words, and operators as strings."""

    line: int
    tokens: tuple[Word | str, ...]


class Arithmetic(NamedTuple):
    """`((…))`; `names` are the variables that it may set."""

    line: int
    names: tuple[str, ...]


Node = (
    Simple | Pipeline | Chain | Background | If | For | While | Case | Group | Subshell | Function | Test | Arithmetic
)


class Script(NamedTuple):
    """`lines` are what the shell reads and then runs at once. `problem` is where it, or the parser, had to stop."""

    lines: tuple[tuple[Node, ...], ...]
    problem: SyntaxProblem | None


class _Stop(Exception):
    def __init__(self, problem: SyntaxProblem) -> None:
        super().__init__(problem)
        self.problem = problem


_NAME = regex(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = regex(r"[^ \t\n;&|<>()'\"\\$`]+")
_IN_QUOTES = regex(r"[^\"\\$`]+")
_IN_BRACES = regex(r"[^}\"'\\$`]+")
_BLANK = regex(r"(?:[ \t]|\\\n)*")
_META = " \t\n;&|<>()"
_QUALIFIER = regex(r"\(([-./@A-Za-z]+)\)(?=[\s;&|)]|$)")
_NO_ARGUMENTS = regex(r"\([ \t]*\)")
_SPECIAL = regex(r"[+~=^]+[A-Za-z_]\w*(\[[^\]\n]*\])?")
"""zsh's `$+name[x]`, `$^name` and the like."""
_CLOSING = frozenset(("then", "elif", "else", "fi", "do", "done", "esac", "}"))
_REDIRECTION = {
    "sh": regex(r"[0-9]*(<<-|<<|>>|<&|>&|<>|>\||<(?!\()|>(?!\())"),
    "bash": regex(r"(?:[0-9]+|\{\w+\})?(<<<|<<-|<<|>>|<&|>&|<>|>\||<(?!\()|>(?!\())|(&>>|&>)"),
}
_ASSIGNMENT = {
    "sh": regex(r"([A-Za-z_][A-Za-z0-9_]*)()(=)"),
    "bash": regex(r"([A-Za-z_][A-Za-z0-9_]*)(\[[^\]\n]*\])?(\+?=)"),
}
_DECLARATIONS = ("declare", "typeset", "export", "readonly", "local")


def parse(text: str, dialect: str) -> Script:
    """Parse a whole file; `dialect` is "sh", "bash" or "zsh". Never raises."""
    return _Parser(text, dialect).script()


@cache
def parsed(text: str, dialect: str) -> Script:
    """The same, kept: homes often hold copies of the same skeleton."""
    return parse(text, dialect)


class _Parser:
    def __init__(self, text: str, dialect: str, first_line: int = 1, depth: int = 0) -> None:
        self.text = text
        self.i = 0
        self.dialect = dialect
        self.depth = depth
        self.first_line = first_line
        self.newlines = [m.start() for m in re.finditer("\n", text)]
        self.heredocs: list[tuple[str, bool]] = []
        self.redirection = _REDIRECTION["sh" if dialect == "sh" else "bash"]
        self.assignment = _ASSIGNMENT["sh" if dialect == "sh" else "bash"]

    # Positions and problems.
    def line(self, position: int | None = None) -> int:
        return self.first_line + bisect.bisect_left(self.newlines, self.i if position is None else position)

    def problem(self, text: str, line: int | None = None, certain: bool = True) -> _Stop:
        return _Stop(SyntaxProblem(line or self.line(), text, certain and self.dialect != "zsh"))

    def unexpected(self, opened: tuple[str, int] | None = None) -> _Stop:
        if self.i >= len(self.text):
            what, line = opened or ("a command", self.line())
            return self.problem(f"the file ends where {what} is not finished", line)
        found = self.reserved() or self.text[self.i : self.i + 2]
        if found[:1] in ";&|()<>\n":
            found = "newline" if found[0] == "\n" else found[0]
        return self.problem(f'"{found}" unexpected')

    def at(self, *texts: str) -> bool:
        return self.text.startswith(texts, self.i)

    # Between words.
    def blank(self) -> None:
        match = _BLANK.match(self.text, self.i)
        self.i = match.end() if match else self.i
        if self.at("#"):
            end = self.text.find("\n", self.i)
            self.i = len(self.text) if end < 0 else end

    def newline(self) -> bool:
        if not self.at("\n"):
            return False
        self.i += 1
        for delimiter, strip in self.heredocs:
            while self.i < len(self.text):
                end = self.text.find("\n", self.i)
                end = len(self.text) if end < 0 else end
                line = self.text[self.i : end]
                self.i = end + 1
                if (line.lstrip("\t") if strip else line) == delimiter:
                    break
            self.i = min(self.i, len(self.text))
        self.heredocs = []
        return True

    def linebreak(self) -> None:
        self.blank()
        while self.newline():
            self.blank()

    def reserved(self) -> str:
        """The bare word here, as far as it could be a reserved one."""
        match = _PLAIN.match(self.text, self.i)
        if not match or (match.end() < len(self.text) and self.text[match.end()] not in _META):
            return ""
        return match[0]

    def take(self, word: str, opened: tuple[str, int]) -> None:
        if self.reserved() != word:
            raise self.unexpected(opened)
        self.i += len(word)

    # Lists of commands.
    def script(self) -> Script:
        lines: list[tuple[Node, ...]] = []
        try:
            while True:
                self.linebreak()
                if self.i >= len(self.text):
                    return Script(tuple(lines), None)
                lines.append(self.commands(frozenset(), None))
        except _Stop as stop:
            return Script(tuple(lines), stop.problem)

    def commands(self, stop: frozenset[str], opened: tuple[str, int] | None) -> tuple[Node, ...]:
        """Commands up to one of the words or operators in `stop`; without any, up to the end of the line."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.problem("cannot follow code that is nested so deeply", certain=False)
        nodes: list[Node] = []
        while True:
            self.blank()
            if self.at("\n") and not stop and nodes:
                break
            if self.newline():
                continue
            if self.i >= len(self.text) and not stop:
                break
            if self.i >= len(self.text):
                raise self.unexpected(opened)
            word = self.reserved()
            if word in stop or (")" in stop and self.at(")")) or (";;" in stop and self.at(";;", ";&")):
                break
            if word in _CLOSING or (self.text[self.i] in ";&|)" and not self.at("&>")):
                raise self.unexpected()
            node = self.chain()
            self.blank()
            if self.at(";") and not self.at(";;", ";&"):
                self.i += 1
            elif self.at("&") and not self.at("&&"):
                self.i += 2 if self.dialect == "zsh" and self.at("&|", "&!") else 1
                node = Background(node.line)
            elif (
                self.i < len(self.text)
                and not self.at("\n", ")", ";;", ";&")
                # After a construct that closes itself, a reserved word may follow without a separator: `(true)fi`.
                and (self.reserved() not in stop or (isinstance(_last(node), Simple) and not self.closes()))
            ):
                raise self.unexpected()
            nodes.append(node)
        self.depth -= 1
        return tuple(nodes)

    def closes(self) -> bool:
        """Whether a brace ends the command before it, which only zsh lets it do without a separator."""
        return self.dialect == "zsh" and self.reserved() == "}"

    def body(self, stop: tuple[str, ...], opened: tuple[str, int]) -> tuple[Node, ...]:
        self.blank()
        if self.dialect == "zsh" and self.at(";") and not self.at(";;"):
            self.i += 1  # as in `do;`
        nodes = self.commands(frozenset(stop), opened)
        if not nodes and self.dialect != "zsh":
            raise self.unexpected(opened)
        return nodes

    def chain(self) -> Node:
        line = self.line()
        first = self.pipeline()
        links = []
        while True:
            self.blank()
            if not self.at("&&", "||"):
                break
            operator = self.text[self.i : self.i + 2]
            self.i += 2
            self.linebreak()
            links.append((operator, self.pipeline()))
        return Chain(line, first, tuple(links)) if links else first

    def pipeline(self) -> Node:
        line, negated = self.line(), False
        while (word := self.reserved()) == "!" or (word == "time" and self.dialect != "sh"):
            if negated and self.dialect == "sh":
                raise self.unexpected()
            self.i += len(word)
            negated ^= word == "!"
            self.blank()
            if word == "time" and self.reserved() == "-p":
                self.i += 2
                self.blank()
            if self.dialect != "sh" and (self.i >= len(self.text) or self.at("\n", ";")):
                return Pipeline(line, (), negated)
        commands = [self.command()]
        while True:
            self.blank()
            if not self.at("|") or self.at("||"):
                break
            self.i += 2 if self.at("|&") and self.dialect != "sh" else 1
            self.linebreak()
            commands.append(self.command())
        return commands[0] if len(commands) == 1 and not negated else Pipeline(line, tuple(commands), negated)

    # Commands.
    def command(self) -> Node:
        if self.i >= len(self.text):
            raise self.unexpected()
        line = self.line()
        node = self.compound(line)
        if node is None:
            return self.simple(line)
        if not isinstance(node, Function):
            self.redirections()
        return node

    def redirections(self) -> None:
        while True:
            self.blank()
            if not self.redirect():
                return

    def redirect(self) -> bool:
        match = self.redirection.match(self.text, self.i)
        if not match:
            return False
        operator = match[match.lastindex or 1]
        self.i = match.end()
        self.blank()
        start = self.i
        if self.i >= len(self.text) or (self.text[self.i] in _META and not self.process()):
            raise self.unexpected()
        word = self.word()
        if operator in ("<<", "<<-"):
            raw = self.text[start : self.i]
            self.heredocs.append((re.sub(r"\\(.)|['\"]", r"\1", raw), operator == "<<-"))
        elif not word:
            raise self.unexpected()
        return True

    def compound(self, line: int) -> Node | None:
        if self.at("((") and self.dialect != "sh" and (end := self.balanced(self.i + 2, "))")) is not None:
            inside = self.text[self.i : end]
            names = tuple(_NAME.findall(inside)) if re.search(r"(?<![=!<>])=(?!=)|\+\+|--", inside) else ()
            self.i = end
            return Arithmetic(line, names)
        if self.dialect == "zsh" and (anonymous := _NO_ARGUMENTS.match(self.text, self.i)):
            self.i = anonymous.end()
            return self.anonymous(line)
        if self.at("("):
            self.i += 1
            inner = self.body((")",), ('"("', line))
            self.i += 1
            return Subshell(line, inner)
        word = self.reserved()
        if word in ("noglob", "nocorrect") and self.dialect == "zsh":
            self.i += len(word)
            self.blank()
            word = self.reserved()
        if word in _CLOSING or word == "in":
            raise self.unexpected()
        if self.dialect == "zsh" and self.at("{"):
            return self.braced(line)
        readers = {"if": self.if_, "for": self.for_, "case": self.case, "while": self.while_, "until": self.while_}
        if word == "{":
            self.i += 1
            inner = self.body(("}",), ('"{"', line))
            self.i += 1
            return Group(line, inner)
        if word in readers:
            self.i += len(word)
            return readers[word](line, word)
        if self.dialect == "sh":
            return None
        if word == "function":
            return self.function(line)
        if word == "[[":
            return self.test(line)
        if self.dialect == "zsh" and word == "repeat":
            return self.repeat(line)
        if self.dialect == "zsh" and word == "foreach":
            self.i += len(word)
            return self.for_(line, word)
        if word in ("select", "coproc", "foreach", "repeat", "always"):
            raise self.problem(f'cannot follow "{word}" here', certain=False)
        return None

    def braced(self, line: int) -> Node:
        """zsh's `{…}`, which needs no blanks, and `{…} always {…}`."""
        self.i += 1
        inner = self.body(("}",), ('"{"', line))
        self.i += 1
        start = self.i
        self.blank()
        if self.reserved() != "always":
            self.i = start
            return Group(line, inner)
        self.i += len("always")
        self.blank()
        return Group(line, (*inner, self.braced(line)))

    def anonymous(self, line: int) -> Node:
        """A function of zsh without a name runs at once, with the words behind it."""
        self.linebreak()
        if not self.at("{"):
            raise self.problem("a function without a name", certain=False)
        function = Function(line, "(anonymous)", self.braced(line))
        words: list[Word] = []
        while True:
            self.blank()
            if self.i >= len(self.text) or self.text[self.i] in _META or self.closes():
                call = Simple(line, (), ((Text(function.name, True),), *words))
                return Group(line, (function, call))
            words.append(self.next_word())

    def repeat(self, line: int) -> Node:
        self.i += len("repeat")
        self.blank()
        self.word()
        self.linebreak()
        return For(line, "", ((Opaque(False),),), self.loop_body(('"repeat"', line), True))

    def if_(self, line: int, word: str) -> Node:
        opened = ('"if"', line)
        branches = []
        otherwise: tuple[Node, ...] = ()
        self.blank()
        if self.dialect == "zsh" and self.at("[["):
            start = self.i
            if (short := self.short_if(line)) is not None:
                return short
            self.i = start
        while True:
            condition = self.body(("then",), opened)
            self.take("then", opened)
            branches.append((condition, self.body(("elif", "else", "fi"), opened)))
            following = self.reserved()
            self.i += len(following)
            if following == "else":
                otherwise = self.body(("fi",), opened)
                self.i += 2
            if following != "elif":
                return If(line, tuple(branches), otherwise)

    def short_if(self, line: int) -> Node | None:
        """zsh's `if [[ … ]] {…} elif [[ … ]] {…} else {…}`; None if it is the usual form."""
        branches = []
        while True:
            self.blank()
            if not self.at("[["):
                return None
            condition = self.test(self.line())
            self.blank()
            if not self.at("{"):
                return None
            branches.append(((condition,), self.group()))
            end = self.i
            self.linebreak()
            following = self.reserved()
            if following == "elif":
                self.i += len(following)
                continue
            if following == "else":
                self.i += len(following)
                self.linebreak()
                return If(line, tuple(branches), self.group()) if self.at("{") else None
            self.i = end
            return If(line, tuple(branches), ())

    def group(self) -> tuple[Node, ...]:
        line = self.line()
        self.i += 1
        inner = self.body(("}",), ('"{"', line))
        self.i += 1
        return inner

    def while_(self, line: int, word: str) -> Node:
        opened = (f'"{word}"', line)
        condition = self.body(("do",), opened)
        return While(line, word == "until", condition, self.loop(opened))

    def loop(self, opened: tuple[str, int]) -> tuple[Node, ...]:
        self.take("do", opened)
        inner = self.body(("done",), opened)
        self.i += 4
        return inner

    def for_(self, line: int, word: str) -> Node:
        opened = (f'"{word}"', line)
        self.blank()
        words: list[Word] | None = None
        name = _NAME.match(self.text, self.i)
        if self.at("((") and self.dialect != "sh":
            end = self.balanced(self.i + 2, "))")
            if end is None:
                raise self.problem("cannot follow an arithmetic for here", certain=False)
            self.i, variable, words = end, "", [(Opaque(False),)]
        elif not name or self.reserved() != name[0]:
            raise self.problem("a bad name for the variable of a loop", certain=self.dialect == "sh")
        else:
            self.i, variable = name.end(), name[0]
        self.linebreak()
        short = self.dialect == "zsh" and bool(variable) and self.at("(")
        if short:
            words = list(self.array())
        elif self.reserved() == "in" and variable:
            self.i += 2
            words = []
            while True:
                self.blank()
                if self.i >= len(self.text) or (self.text[self.i] in _META and not self.process()):
                    break
                words.append(self.next_word())
        if self.at(";") and not self.at(";;"):
            self.i += 1
        elif words is not None and variable and not short and not self.at("\n"):
            raise self.unexpected(opened)
        self.linebreak()
        return For(line, variable, None if words is None else tuple(words), self.loop_body(opened, short))

    def loop_body(self, opened: tuple[str, int], short: bool) -> "tuple[Node, ...]":
        """Between do and done; bash and zsh take braces as well, and zsh a single command."""
        if opened[0] == '"foreach"':
            inner = self.body(("end",), opened)
            self.i += len("end")
            return inner
        if self.reserved() == "{" and self.dialect != "sh":
            self.i += 1
            inner = self.body(("}",), opened)
            self.i += 1
            return inner
        short |= self.dialect == "zsh" and opened[0] == '"for"'
        return (self.chain(),) if short and self.reserved() != "do" else self.loop(opened)

    def case(self, line: int, word: str) -> Node:
        opened = ('"case"', line)
        self.blank()
        subject = self.word()
        if not subject:
            raise self.unexpected(opened)
        self.linebreak()
        self.take("in", opened)
        arms: list[tuple[tuple[Word, ...], tuple[Node, ...], str]] = []
        while True:
            self.linebreak()
            if self.reserved() == "esac":
                self.i += 4
                return Case(line, subject, tuple(arms))
            if self.at("(") and self.grouped() is None:
                self.i += 1
            patterns = []
            while True:
                self.blank()
                pattern = self.alternatives() or self.word()
                if not pattern:
                    raise self.unexpected(opened)
                patterns.append(pattern)
                self.blank()
                if not self.at("|") or self.at("||"):
                    break
                self.i += 1
            if not self.at(")"):
                raise self.unexpected(opened)
            self.i += 1
            inner = self.commands(frozenset((";;", "esac")), opened)
            ending = next((e for e in (";;&", ";;", ";&") if self.at(e)), "")
            if self.dialect == "sh" and ending in (";&", ";;&"):
                self.i += len(ending) - 1
                raise self.unexpected()
            self.i += len(ending)
            arms.append((tuple(patterns), inner, ending or ";;"))

    def grouped(self) -> int | None:
        """Where the group of `(a|b)c`, a pattern of zsh, ends; None if the parenthesis is not part of a pattern."""
        end = self.balanced(self.i + 1, ")") if self.dialect == "zsh" and self.at("(") else None
        return None if end is None or self.text[end : end + 1] in tuple(" \t\n") else end

    def alternatives(self) -> Word | None:
        """A pattern that begins with a group: nothing here reads it."""
        if (end := self.grouped()) is None:
            return None
        self.i = end
        self.word()
        return (Opaque(False),)

    def function(self, line: int) -> Node:
        """After the keyword `function` of bash."""
        self.i += len("function")
        self.blank()
        if self.dialect == "zsh" and self.at("{"):
            return self.anonymous(line)
        match = _PLAIN.match(self.text, self.i)
        if not match:
            raise self.problem("a function without a name", certain=False)
        self.i = match.end()
        self.blank()
        names = [match[0]]
        while self.dialect == "zsh" and not self.at("{") and (match := _PLAIN.match(self.text, self.i)):
            names.append(match[0])
            self.i = match.end()
            self.blank()
        if re.compile(r"\([ \t]*\)").match(self.text, self.i):
            self.i = self.text.index(")", self.i) + 1
        node = self.function_body(line, names[0])
        if len(names) == 1 or not isinstance(node, Function):
            return node
        return Group(line, tuple(node._replace(name=name) for name in names))

    def function_body(self, line: int, name: str) -> Node:
        self.linebreak()
        start = self.line()
        inner = self.compound(start) if self.i < len(self.text) else None
        if inner is None:
            if self.dialect != "bash" and self.i < len(self.text):
                inner = self.simple(start)  # dash and zsh take any command
            else:
                raise self.unexpected((f"the function {name}", line))
        self.redirections()
        return Function(line, name, inner)

    def test(self, line: int) -> Node:
        self.i += 2
        tokens: list[Word | str] = []
        while True:
            self.linebreak()
            if self.i >= len(self.text):
                raise self.problem("the file ends where [[ is not finished", line)
            if self.reserved() == "]]":
                if not tokens:
                    raise self.problem("an empty [[, which newer shells refuse", certain=False)
                self.i += 2
                return Test(line, tuple(tokens))
            if tokens[-1:] == ["=~"] or (tokens[-1:] and tokens[-1] in ("==", "=", "!=") and self.extended_pattern()):
                tokens.append(self.regex())
            elif operator := next((o for o in ("&&", "||", "(", ")", "<", ">") if self.at(o)), ""):
                self.i += len(operator)
                tokens.append(operator)
            elif (word := self.reserved()) in ("!", "=~", "==", "=", "!="):
                self.i += len(word)
                tokens.append(word)
            else:
                found = self.word()
                if not found:
                    raise self.problem("cannot follow this [[", certain=False)
                tokens.append(found)

    def extended_pattern(self) -> bool:
        return re.compile(r"[^\s&|]*\(").match(self.text, self.i) is not None

    def regex(self) -> Word:
        """A regular expression or an extended pattern: nothing here reads it."""
        depth, quote = 0, ""
        while self.i < len(self.text):
            char = self.text[self.i]
            if char == "\\":
                self.i += 1
            elif quote:
                quote = "" if char == quote else quote
            elif char in "'\"":
                quote = char
            elif char in " \t\n" and depth == 0:
                break
            else:
                depth += (char == "(") - (char == ")")
            self.i += 1
        self.i = min(self.i, len(self.text))
        return (Opaque(False),)

    def simple(self, line: int) -> Node:
        assignments: list[Assignment] = []
        words: list[Word] = []
        begin = self.i
        while True:
            self.blank()
            if self.redirect():
                continue
            if self.i >= len(self.text) or (self.text[self.i] in _META and not self.process()) or self.closes():
                break
            match = self.assignment.match(self.text, self.i) if not words else None
            if match:
                assignments.append(self.assign(match))
                continue
            start = self.i
            words.append(self.next_word(arrays=bool(words) and _literal(words[0]) in _DECLARATIONS))
            if len(words) == 1 and not assignments and (node := self.defined(line, start)):
                return node
        if self.i == begin or self.at("("):
            raise self.unexpected()
        return Simple(line, tuple(assignments), tuple(words))

    def defined(self, line: int, start: int) -> Node | None:
        """The function that `name ()` begins."""
        name = self.text[start : self.i]
        self.blank()
        if not self.at("("):
            return None
        match = re.compile(r"\([ \t]*\)").match(self.text, self.i)
        if not match:
            raise self.unexpected()
        if not _NAME.fullmatch(name) and self.dialect == "sh":
            raise self.problem(f"{name!r} is a bad name for a function", line)
        self.i = match.end()
        return self.function_body(line, name)

    def assign(self, match: "re.Match[str]") -> Assignment:
        self.i = match.end()
        append = match[3] == "+="
        if self.at("(") and self.dialect != "sh":
            items = self.array()
            return Assignment(match[1], append, (Opaque(False),), None if match[2] else items)
        word = self.word(value=True)
        return Assignment(match[1], append, (Opaque(False),) if match[2] else word, None, (match[2] or "")[1:-1])

    def array(self) -> tuple[Word, ...]:
        opened = ("an array", self.line())
        self.i += 1
        items: list[Word] = []
        while True:
            self.linebreak()
            if self.i >= len(self.text):
                raise self.unexpected(opened)
            if self.at(")"):
                self.i += 1
                return tuple(items)
            if self.text[self.i] in _META and not self.process():
                raise self.problem("cannot follow this array", certain=False)
            items.append(self.next_word())

    # Words.
    def process(self) -> bool:
        return self.dialect != "sh" and self.at("<(", ">(")

    def next_word(self, *, arrays: bool = False) -> Word:
        """A word of a list. A list ends where no word begins, so a reader that does not move is at an error."""
        start = self.i
        word = self.word(arrays)
        if self.i == start:
            raise self.unexpected()
        return word

    def word(self, arrays: bool = False, value: bool = False) -> Word:
        """The parts of a word; `arrays` in an argument of a declaration, `value` behind the `=` of an assignment."""
        parts: list[Part] = []
        while self.i < len(self.text):
            char = self.text[self.i]
            if char in "<>" and self.process():
                line = self.line()
                self.i += 2
                inner = self.commands(frozenset((")",)), ('"<("', line))
                self.i += 1
                parts.append(Output(inner, True, process=True))
            elif char == "(" and parts and self.dialect != "sh":
                last = parts[-1]
                if arrays and isinstance(last, Text) and last.text.endswith("="):
                    self.array()
                    parts.append(Opaque(True))
                elif self.dialect == "zsh" and (match := _QUALIFIER.match(self.text, self.i)):
                    self.i = match.end()
                    parts.append(Qualifier(match[1]))
                elif (
                    self.dialect != "zsh"
                    and isinstance(last, Text)
                    and not last.quoted
                    and last.text[-1:] in tuple("?*+@!")
                ):
                    raise self.problem("cannot follow this extended pattern", certain=False)
                elif self.dialect == "zsh" and not self.at("()"):  # the name of a function
                    end = self.balanced(self.i + 1, ")")
                    if end is None:
                        raise self.problem("cannot follow this pattern", certain=False)
                    parts.append(Qualifier(self.text[self.i + 1 : end - 1]))
                    self.i = end
                else:
                    break
            elif char in _META:
                break
            elif char == "\\":
                if self.text[self.i + 1 : self.i + 2] != "\n":
                    parts.append(Text(self.text[self.i + 1 : self.i + 2] or "\\", True))
                self.i += 2
            elif char == "'":
                parts.append(Text(self.single(), True))
            elif char == '"':
                self.double(parts)
            elif char == "$":
                self.dollar(parts, False)
            elif char == "`":
                parts.append(self.backquote(False))
            else:
                match = _PLAIN.match(self.text, self.i)
                text = match[0] if match else char
                value = value or (arrays and "=" in text)
                closing = self.dialect == "zsh" and not value and self.ends_in_brace(text, parts)
                self.i += len(text) - closing
                if text := text[: len(text) - closing]:
                    parts.append(Text(text, False))
                if closing:
                    break
        self.i = min(self.i, len(self.text))
        return tuple(parts)

    def ends_in_brace(self, text: str, before: list[Part]) -> bool:
        """Whether the last character of a word is a brace that nothing in the word opened: for zsh it closes a group."""
        end = self.i + len(text)
        if not text.endswith("}") or (end < len(self.text) and self.text[end] not in _META):
            return False
        bare = [text, *(p.text for p in before if isinstance(p, Text) and not p.quoted)]
        return sum(part.count("{") - part.count("}") for part in bare) < 0

    def single(self) -> str:
        end = self.text.find("'", self.i + 1)
        if end < 0:
            raise self.problem("a quote ' is left open")
        content = self.text[self.i + 1 : end]
        self.i = end + 1
        return content

    def double(self, parts: list[Part]) -> None:
        line = self.line()
        self.i += 1
        parts.append(Text("", True))
        while True:
            match = _IN_QUOTES.match(self.text, self.i)
            if match:
                parts.append(Text(match[0], True))
                self.i = match.end()
            if self.i >= len(self.text):
                raise self.problem('a quote " is left open', line)
            char = self.text[self.i]
            if char == '"':
                self.i += 1
                return
            if char == "$":
                self.dollar(parts, True)
            elif char == "`":
                parts.append(self.backquote(True))
            else:
                self.escape(parts)

    def escape(self, parts: list[Part]) -> None:
        """A backslash within double quotes."""
        following = self.text[self.i + 1 : self.i + 2]
        if following != "\n":
            parts.append(Text(following if following and following in '$`"\\' else "\\" + following, True))
        self.i += 2

    def dollar(self, parts: list[Part], quoted: bool) -> None:
        line = self.line()
        self.i += 1
        following = self.text[self.i : self.i + 1]
        if following == "{":
            self.i += 1
            parts.append(self.braces(quoted, line))
        elif self.at("((") and (end := self.balanced(self.i + 2, "))")) is not None:
            self.i = end
            parts.append(Opaque(quoted))
        elif self.at("((") and self.dialect == "sh":
            raise self.problem("cannot follow this $((", certain=False)
        elif following == "(":
            self.i += 1
            inner = self.commands(frozenset((")",)), ('"$("', line))
            self.i += 1
            parts.append(Output(inner, quoted))
        elif match := _NAME.match(self.text, self.i):
            self.i = match.end()
            modified = self.dialect == "zsh" and re.compile(r"\[|(:[A-Za-z&]\w*)+").match(self.text, self.i)
            if modified:
                self.i = modified.end()
            if modified and modified[0] == "[":
                self.i = (self.text.find("]", self.i) + 1) or len(self.text)
            parts.append(Opaque(quoted) if modified else Param(match[0], "", (), quoted))
        elif following and following in "0123456789@*#?$!-":
            self.i += 1
            parts.append(Param(following, "", (), quoted))
        elif following == "[" and self.dialect != "sh":
            end = self.balanced(self.i + 1, "]")
            if end is None:
                raise self.problem("$[ is not finished", line)
            self.i = end
            parts.append(Opaque(quoted))
        elif following == "'" and not quoted:
            self.ansi(parts, line)
        elif following == '"' and not quoted and self.dialect == "bash":
            self.double(parts)
        elif self.dialect == "zsh" and (match := _SPECIAL.match(self.text, self.i)):
            self.i = match.end()
            parts.append(Opaque(quoted))
        else:
            parts.append(Text("$", True))

    def ansi(self, parts: list[Part], line: int) -> None:
        """`$'…'`: a string with escapes in bash and zsh, a dollar and a string in older dash."""
        if self.dialect == "sh":
            self.single()
        else:
            match = re.compile(r"'(?:[^'\\]|\\.)*'", re.DOTALL).match(self.text, self.i)
            if not match:
                raise self.problem("a quote ' is left open", line)
            self.i = match.end()
        parts.append(Opaque(True))

    def braces(self, quoted: bool, line: int) -> Part:
        length = re.compile(r"#([A-Za-z_][A-Za-z0-9_]*|[0-9@*]+)?\}").match(self.text, self.i)
        if length:
            self.i = length.end()
            return Param(length[1] or "#", "length" if length[1] else "", (), quoted)
        name = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-]").match(self.text, self.i)
        plain = name and re.compile(r"(:?[-=?+]|##?|%%?|(?=\}))").match(self.text, name.end())
        if name and plain:
            self.i = plain.end()
            operator = plain[1]
            # A pattern is active also within double quotes; other words are quoted with the whole.
            word = self.brace_word(quoted and operator[:1] not in ("#", "%"), line)
            return Param(name[0], operator, word, quoted)
        if (
            name
            and self.dialect != "sh"
            and (slashes := re.compile(r"//?(?![#%])").match(self.text, self.i + len(name[0])))
        ):
            self.i = slashes.end()
            return Param(name[0], slashes[0], self.brace_word(False, line), quoted)
        self.brace_word(quoted, line)
        return Param(name[0] if name else "", "other", (), quoted)

    def brace_word(self, quoted: bool, line: int) -> Word:
        parts: list[Part] = []
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.problem("cannot follow code that is nested so deeply", certain=False)
        while True:
            match = _IN_BRACES.match(self.text, self.i)
            if match:
                parts.append(Text(match[0], quoted))
                self.i = match.end()
            if self.i >= len(self.text):
                raise self.problem("a brace ${ is left open", line)
            char = self.text[self.i]
            if char == "}":
                self.i += 1
                self.depth -= 1
                return tuple(parts)
            if char == "'":
                if quoted and self.dialect == "bash":
                    raise self.problem("cannot follow a quote in quoted braces", certain=False)
                if quoted:
                    parts.append(Text("'", True))
                    self.i += 1
                else:
                    parts.append(Text(self.single(), True))
            elif char == '"':
                self.double(parts)
            elif char == "$":
                self.dollar(parts, quoted)
            elif char == "`":
                parts.append(self.backquote(quoted))
            elif quoted and self.text[self.i + 1 : self.i + 2] != "}":
                self.escape(parts)
            else:
                if self.text[self.i + 1 : self.i + 2] != "\n":
                    parts.append(Text(self.text[self.i + 1 : self.i + 2], True))
                self.i += 2

    def backquote(self, quoted: bool) -> Part:
        line = self.line()
        match = re.compile(r"`((?:[^`\\]|\\.)*)`", re.DOTALL).match(self.text, self.i)
        if not match:
            raise self.problem("a backquote ` is left open", line)
        self.i = match.end()
        inner = re.sub(r'\\([$`\\"])' if quoted else r"\\([$`\\])", r"\1", match[1])
        script = _Parser(inner, self.dialect, line, self.depth + 1).script()
        if script.problem:
            # dash reads the inner text at once; bash only when it runs the command.
            if self.dialect == "sh" or not script.problem.certain:
                # dash also accepts some characters at the end of the text in backquotes that are errors elsewhere.
                sure = (
                    "left open" in script.problem.text
                    or "file ends" in script.problem.text
                    or "(" in script.problem.text
                )
                raise _Stop(script.problem._replace(certain=script.problem.certain and sure))
            return Output(None, quoted)
        return Output(tuple(node for commands in script.lines for node in commands), quoted)

    def balanced(self, start: int, closing: str) -> int | None:
        """The position after the closing text, with parentheses and quotes in between in pairs."""
        depth, i = 0, start
        while i < len(self.text):
            char = self.text[i]
            if depth == 0 and self.text.startswith(closing, i):
                return i + len(closing)
            if char == "\\":
                i += 1
            elif char in "([":
                depth += 1
            elif char in ")]":
                if depth == 0:
                    return None
                depth -= 1
            i += 1
        return None


def _last(node: Node) -> Node:
    """The command that ends in the same place."""
    if isinstance(node, Chain):
        return _last(node.links[-1][1])
    return _last(node.commands[-1]) if isinstance(node, Pipeline) and node.commands else node


def _literal(word: Word) -> str:
    return word[0].text if len(word) == 1 and isinstance(word[0], Text) else ""


def literal(word: Word) -> str | None:
    """The text of a word without any expansion; None if it has one."""
    return "".join(p.text for p in word if isinstance(p, Text)) if all(isinstance(p, Text) for p in word) else None
