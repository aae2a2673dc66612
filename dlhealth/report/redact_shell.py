"""Hides the content of shell start-up files, except the variables that rules need and the syntax around them.

It accepts more than a shell: everything that it does not understand is hidden. So a mistake here costs a finding in an
archive, never a secret.
"""

import re
from collections.abc import Iterator, Mapping

from dlhealth.lazy import regex
from dlhealth.records import NamedTuple
from dlhealth.shell.words import dialect_of, next_substitution, word_end

_DEEPEST = 30

_WANTED = regex(
    r"(?:PATH|path|fpath|manpath|ld_library_path|LD_[A-Z_]+|LIBRARY_PATH|(?:C|CPLUS|C_INCLUDE|CPLUS_INCLUDE|MAN|PKG_CONFIG|PYTHON|CMAKE_PREFIX)_?PATH"
    r"|PYTHON[A-Z]+|VIRTUAL_ENV|CONDA_[A-Z_0-9]+|MAMBA_[A-Z_]+|PYENV_[A-Z]+"
    r"|CUDA\w*|CUDNN\w*|NVCC\w*|NVIDIA_\w+|NV_\w+|__GL\w*|__NV\w*|__EGL\w*|__GLX\w*|VK_\w+|GBM_BACKEND|TF_\w+|TORCH_\w+|XLA_\w+|JAX_\w+"
    r"|CC|CXX|CUDACXX|CUDAHOSTCXX|HOME|USER|LOGNAME|SHELL|UID|EUID|HOSTNAME|LANG|LANGUAGE|LC_[A-Z]+|TERM|DISPLAY|WAYLAND_DISPLAY|XAUTHORITY"
    r"|XDG_[A-Z_]+|DESKTOP_SESSION|GDMSESSION|GDK_BACKEND|GRUB_\w+|BASH|BASH_ENV|BASH_VERSION|ZSH_VERSION|ENV|PS1|ZDOTDIR|TMPDIR|IFS|SHLVL|PWD"
    r"|-|prompt|shell|home|user)"
)
_SECRET = regex(
    r"(?i)passw|passphrase|pwd$|(?:^|[_.-])(?:pass|pw)(?:$|[_.-])|secret|token|credential|cookie|private|api[_-]?key|access[_-]?key"
    r"|luks.key|(?:^|[_.-])key$|(?:^|[_.-])auth(?:$|[_.-])|auth_?token|signature|set_credential|session_?id"
)
_KEYWORDS = frozenset(
    [
        "if",
        "then",
        "else",
        "elif",
        "fi",
        "do",
        "done",
        "while",
        "until",
        "esac",
        "!",
        "{",
        "}",
        "[[",
        "time",
        "coproc",
        "endif",
        "end",
        "endsw",
        "breaksw",
        "default:",
        "begin",
        "and",
        "or",
        "not",
        "else",
    ]
)
_PREFIXES = frozenset(["exec", "eval", "command", "builtin", "nohup", "env", "sudo", "noglob", "nice", "repeat"])
_DECLARING = frozenset(["export", "declare", "typeset", "local", "readonly", "integer"])
_NAMING = frozenset(["unset", "unsetenv", "unfunction", "unhash"])
_NUMERIC = frozenset(["exit", "return", "break", "continue", "shift", "umask", "logout"])
_LOADING = frozenset(
    [
        "load",
        "add",
        "activate",
        "deactivate",
        "use",
        "switch",
        "swap",
        "init",
        "hook",
        "shell.bash",
        "shell.zsh",
        "shell.posix",
    ]
)
_LOADERS = frozenset(["module", "ml", "conda", "mamba", "micromamba", "pyenv"])
_SET_WORDS = frozenset(
    ["errexit", "nounset", "pipefail", "noclobber", "xtrace", "verbose", "allexport", "noglob", "posix", "vi", "emacs"]
)

_FILE_TESTS = frozenset(["-a", "-d", "-e", "-f", "-h", "-L", "-r", "-s", "-w", "-x"])

_NAME = regex(r"[A-Za-z_]\w*", re.ASCII)
_ASSIGNMENT = regex(r"([A-Za-z_]\w*)(\[[^]\n]*\])?\+?=", re.ASCII)
_REFERENCE = regex(r"\$[?#]?\{?[?#!]?([A-Za-z_]\w*)", re.ASCII)
_HIDDEN = regex(r"\$[?#]?\{?[?#!]?([A-Za-z_]\w*)|(\$[0-9@*#?$!-])|\\\n|[^\W_]|[^\x00-\x7f]", re.ASCII)
_COMMAND = regex(r"[a-z_][a-z_.+-]*(?:[0-9][a-z_.+-]*){0,4}", re.ASCII)
_FLAG = regex(r"[-+][A-Za-z]{1,3}|--[a-z][a-z-]*", re.ASCII)
_PLACE = regex(
    r"(?:/(?:bin|boot|dev|etc|home|lib\w{0,3}|media|mnt|opt|proc|root|run|sbin|snap|srv|sys|tmp|usr|var)(?=/|$)|~(?=/|$)|~\w+/"
    r"|\$\{?[A-Za-z_]\w*\}?(?=[/:]|$)|\.\.?/)[\w./+~@%,:{}$*?\[\]-]*",
    re.ASCII,
)
_CONDA_MARK = regex(r"# (?:>>>|<<<) (?:conda|mamba) initialize (?:>>>|<<<)\s*")
_INNER = regex(r"(?<![\w$/?&-])(?!DEFAULT=|OVERRIDE=)([A-Za-z_]\w*)=((?:\"[^\"]*\"?|'[^']*'?|[^\s;\"'])+)", re.ASCII)
_LINE_END = regex(r"(?<!\\)\n")
_BLANKS = regex(r"(?:[ \t\r\f\v]|\\\r?\n)+")
_ANY_BLANKS = regex(r"\s+")
_OPERATOR = regex(r"<<<|<<-?|;;&|;;|;&|&&|\|\||&>>?|>>|>&|<&|>\||[;&|<>()]")


def hide(text: str) -> str:
    """The text with an "x" for each letter and digit."""
    return re.sub(r"[^\W_]|[^\x00-\x7f]", "x", text)


def is_wanted_name(name: str) -> bool:
    """Whether rules need a variable."""
    return bool(_WANTED.fullmatch(name)) and not is_secret_name(name)


def is_secret_name(name: str) -> bool:
    """Whether something with this name is likely a secret."""
    return bool(_SECRET.search(name)) and name not in ("PWD", "GRUB_ENABLE_CRYPTODISK")


class _Piece(NamedTuple):
    """A part of a script. `role` is its kind, `name` the variable that it belongs to."""

    text: str
    role: str
    name: str = ""


class Shell:
    """All scripts of a machine, by path: one may use the variables of another."""

    def __init__(self, scripts: Mapping[str, str]) -> None:
        used: dict[str, set[str]] = {}
        given: dict[str, set[str]] = {}
        self._functions: set[str] = set()
        self._assigned: set[str] = set()
        wanted: set[str] = set()
        for path, text in scripts.items():
            for piece in _pieces(text, dialect_of(path)):
                names = set(_REFERENCE.findall(piece.text)) if "$" in piece.text else set()
                if piece.role == "value":
                    self._assigned.add(piece.name)
                    used.setdefault(piece.name, set()).update(names)
                elif piece.role == "function":
                    self._functions.add(piece.text)
                elif piece.role in ("sourced", "place"):
                    wanted |= names
                elif piece.role == "argument":
                    given.setdefault(piece.name, set()).update(names)
        # An argument of a script's own function may become part of PATH.
        wanted.update(*(names for command, names in given.items() if command in self._functions))
        self._kept: set[str] = set()
        frontier = wanted | {name for name in used if is_wanted_name(name)}
        while frontier:
            self._kept |= frontier
            frontier = {n for name in frontier for n in used.get(name, ())} - self._kept
        self._kept = {name for name in self._kept if not is_secret_name(name)}

    def keeps(self, name: str) -> bool:
        """Whether the value of a variable is shown: rules need it, or need one that contains it."""
        return is_wanted_name(name) or name in self._kept

    def mask(self, path: str, text: str) -> str:
        """A script without its secrets."""
        return self._mask(text, dialect_of(path), 0)

    def _mask(self, text: str, dialect: str, depth: int) -> str:
        if depth > _DEEPEST:
            return hide(text)
        return "".join(self._shown(piece, dialect, depth) for piece in _pieces(text, dialect))

    def _shown(self, piece: _Piece, dialect: str, depth: int) -> str:
        text = piece.text
        match piece.role:
            case "syntax" | "function":
                return text
            case "pattern" if self._known(piece.name):
                return text
            case "value" if self.keeps(piece.name):
                return self._opened(text, dialect, depth)
            case "sourced" | "place":
                return self._opened(text, dialect, depth)
            case "test" if self._known(piece.name) or _is_place(text) or not re.search(r"[^\W_]{3}", text):
                return self._opened(text, dialect, depth)
            case "test":
                return _HIDDEN.sub(_reference_or_x, text)
            case "name" if text in self._assigned or self.keeps(text):
                return text
            case "command" if text in self._functions or self.keeps(text) or _is_command(text):
                return text
            case "argument" if _FLAG.fullmatch(text) or _is_place(text):
                return text
            case "comment" if _CONDA_MARK.fullmatch(text):
                return text
            case "comment" | "heredoc":
                return hide(text)
        return hide(text) if text.startswith("'") else self._opened(text, dialect, depth, closed=True)

    def _known(self, text: str) -> bool:
        """Whether all variables in it are shown anyway."""
        return all(self.keeps(name) for name in _REFERENCE.findall(text))

    def _opened(self, text: str, dialect: str, depth: int, closed: bool = False) -> str:
        """A word unchanged, except names and passwords in addresses. Of the commands whose output is part of it, only
        the parts that are shown elsewhere too; `closed` also hides the rest."""
        shown, position = [], 0
        while (found := next_substitution(text, position)) is not None:
            start, end, opening = found
            shown.append(self._text(text[position : start + opening], closed))
            shown.append(self._mask(text[start + opening : end], dialect, depth + 1))
            position = end
        shown.append(self._text(text[position:], closed))
        return "".join(shown)

    def _text(self, text: str, closed: bool) -> str:
        if closed:
            return self._closed(text)
        return self.own(re.sub(r"(://)([^/\s@]+)(?=@)", lambda m: m[1] + hide(m[2]), text))

    def own(self, value: str) -> str:
        """A visible value, without foreign parts: assignments in it, and the lines that an open quote added to it."""
        value = _INNER.sub(lambda m: m[0] if self.keeps(m[1]) else f"{m[1]}={hide(m[2])}", value)
        line_end = _LINE_END.search(value)
        if not line_end:
            return value
        others = value[line_end.end() :]
        return value[: line_end.end()] + re.sub(
            r"\S+", lambda m: m[0] if _is_list(m[0]) else self._closed(m[0]), others
        )

    def _closed(self, text: str) -> str:
        return _HIDDEN.sub(self._wanted_or_x, text)

    def _wanted_or_x(self, match: "re.Match[str]") -> str:
        """A reference to a visible variable stays; "$ecret" may also be part of a secret."""
        return _reference_or_x(match) if not match[1] or self.keeps(match[1]) else hide(match[0])


def _reference_or_x(match: "re.Match[str]") -> str:
    return match[0] if match[1] or match[2] or match[0] == "\\\n" else "x"


def _is_place(text: str) -> bool:
    bare = text.strip("\"'")
    return bool(_PLACE.fullmatch(bare))


def _is_list(text: str) -> bool:
    """Whether it may be a part of PATH."""
    return all(not e or _is_place(e) or _REFERENCE.fullmatch(e.rstrip("}")) for e in text.strip("\"'").split(":"))


def _is_command(text: str) -> bool:
    return (len(text) <= 30 and bool(_COMMAND.fullmatch(text))) or _is_place(text)


# The words of a script, each with its role.


def _pieces(text: str, dialect: str) -> Iterator[_Piece]:
    reader = _Reader(text, dialect)
    yield from reader.pieces()


class _Reader:
    def __init__(self, text: str, dialect: str) -> None:
        self.text = text
        self.dialect = dialect
        self.i = 0
        self.mode = "command"
        self.name = ""
        self.loading = False
        self.test: list[_Piece] | None = None
        self.cases: list[str] = []
        self.delimiters: list[str] = []
        self.open = 0

    def pieces(self) -> Iterator[_Piece]:
        if self.text.startswith("#!"):
            self.i = self.text.find("\n") % (len(self.text) + 1)
            yield _Piece(self.text[: self.i], "syntax")
        while self.i < len(self.text):
            for piece in self.step():
                if self.test is None:
                    yield piece
                else:
                    self.test.append(piece)
            if self.test is not None and self.mode not in ("test", "condition"):
                yield from self.end_of_test()
        if self.test is not None:
            yield from self.end_of_test()

    def end_of_test(self) -> Iterator[_Piece]:
        """A test shows the compared words if the variable is visible."""
        names = " ".join(f"${n}" for p in self.test or () for n in _REFERENCE.findall(p.text))
        before = ""
        for piece in self.test or ():
            if piece.role == "test":
                role = "place" if before in _FILE_TESTS and _is_place(piece.text) else "test"
                before = piece.text
                piece = piece._replace(role=role, name=names)
            yield piece
        self.test = None

    def step(self) -> Iterator[_Piece]:
        text, start = self.text, self.i
        if text[start] == "\n":
            yield from self.newline()
        elif match := _BLANKS.match(text, start):
            self.i = match.end()
            yield _Piece(match[0], "syntax")
        elif text[start] == "#":
            end = text.find("\n", start)
            self.i = len(text) if end < 0 else end
            yield _Piece(text[start : self.i], "comment")
        elif match := _OPERATOR.match(text, start):
            self.i = match.end()
            self.operator(match[0])
            yield _Piece(match[0], "syntax")
        else:
            self.i = max(word_end(text, start, self.dialect), start + 1)
            yield from self.word(text[start : self.i])

    def newline(self) -> Iterator[_Piece]:
        self.i += 1
        yield _Piece("\n", "syntax")
        self.reset()
        for delimiter in self.delimiters:
            while self.i < len(self.text):
                end = self.text.find("\n", self.i)
                end = len(self.text) if end < 0 else end + 1
                line = self.text[self.i : end]
                self.i = end
                if line.strip() == delimiter:
                    yield _Piece(line, "syntax")
                    break
                yield _Piece(line, "heredoc")
        self.delimiters = []

    def reset(self) -> None:
        """The next word is a command, or the pattern of a case."""
        self.mode = "pattern" if self.cases and self.cases[-1].startswith("!") else "command"

    def operator(self, operator: str) -> None:
        """The effect of an operator on the words after it."""
        if operator in ("<<", "<<-"):
            self.delimiters.append("")
        elif self.mode == "condition":
            self.open += {"(": 1, ")": -1}.get(operator, 0)
            if self.open == 0:
                self.mode = "command"
        elif operator == ")" and self.mode == "pattern":
            self.cases[-1] = self.cases[-1].removeprefix("!")
            self.mode = "command"
        elif operator in (";;", ";&", ";;&") and self.cases:
            self.cases[-1] = "!" + self.cases[-1].removeprefix("!")
            self.mode = "pattern"
        elif "<" in operator or ">" in operator:
            pass  # the target of a redirection is one more argument
        elif self.mode == "pattern" or (self.mode == "test" and self.name == "[["):
            pass
        elif not (self.dialect == "csh" and operator in "()" and self.mode in ("value", "argument")):
            self.reset()

    def word(self, word: str) -> Iterator[_Piece]:
        if self.delimiters and not self.delimiters[-1]:
            self.delimiters[-1] = re.sub(r"['\"\\]", "", word).strip() or "\n"
            yield _Piece(word, "syntax" if re.fullmatch(r"['\"\\]*\w{1,20}['\"]*", word) else "argument")
            return
        following = self.text[self.i : self.i + 1]
        if word.isdigit() and following in ("<", ">") and following:
            yield _Piece(word, "syntax")
            return
        yield from getattr(self, f"in_{self.mode}")(word)

    # One method per mode; each yields the kind of the word, and may change the mode.
    def in_command(self, word: str) -> Iterator[_Piece]:
        match = _ASSIGNMENT.match(word)
        if match and self.dialect != "csh":
            yield from self.assignment(word, match)
        elif word in _KEYWORDS:
            if word == "[[":
                self.mode, self.name, self.test = "test", "[[", []
            elif word == "esac" and self.cases:
                self.cases.pop()
            elif self.dialect == "csh" and word in ("if", "while"):
                self.mode, self.open, self.test = "condition", 0, []
            yield _Piece(word, "syntax")
        elif word in _PREFIXES:
            yield _Piece(word, "syntax")
        elif re.match(r"[ \t]*\(\)", self.text[self.i : self.i + 8]):
            self.mode = "argument"
            yield _Piece(word, "function")
        else:
            yield from self.begin(word)

    def begin(self, word: str) -> Iterator[_Piece]:
        """The command word that decides what its arguments are."""
        role = "syntax"
        if word in ("[", "test"):
            self.mode, self.name, self.test = "test", "[", []
        elif word in (".", "source"):
            self.mode = "sourced"
        elif word in _DECLARING:
            self.mode, self.name = "declaring", ""
        elif word in _NAMING:
            self.mode = "naming"
        elif word in _NUMERIC:
            self.mode = "numeric"
        elif word in ("setenv", "for", "foreach", "select"):
            self.mode = "variable"
        elif word == "set":
            self.mode = "set"
        elif word in ("case", "switch"):
            self.mode = "subject"
        elif word == "function":
            self.mode = "function"
        elif word.strip("'\"").rpartition("/")[2] in _LOADERS:
            self.mode, self.loading, role = "loader", False, "command"
        elif word == "fish_add_path":
            self.mode, self.name = "value", "PATH"
        elif is_wanted_name(word):
            # `PATH = …`: a mistake that a rule may report.
            self.mode, self.name = "value", word
        else:
            self.mode, self.name, role = "argument", word, "command"
        yield _Piece(word, role)

    def assignment(self, word: str, match: "re.Match[str]") -> Iterator[_Piece]:
        yield _Piece(match[0], "syntax")
        self.name = match[1]
        value = word[match.end() :]
        if not value and self.text[self.i : self.i + 1] == "(":
            self.i += 1
            yield _Piece("(", "syntax")
            yield from self.elements()
            self.mode = "command"
        elif value:
            yield _Piece(value, "value", match[1])

    def elements(self) -> Iterator[_Piece]:
        """The elements of an array up to its closing parenthesis."""
        while self.i < len(self.text) and self.text[self.i] != ")":
            start = self.i
            if match := _ANY_BLANKS.match(self.text, start):
                self.i = match.end()
                yield _Piece(match[0], "syntax")
            elif self.text[start] == "#":
                end = self.text.find("\n", start)
                self.i = len(self.text) if end < 0 else end
                yield _Piece(self.text[start : self.i], "comment")
            else:
                self.i = max(word_end(self.text, start, self.dialect), start + 1)
                yield _Piece(self.text[start : self.i], "value", self.name)
        yield _Piece(self.text[self.i : self.i + 1], "syntax")
        self.i += 1

    def in_argument(self, word: str) -> Iterator[_Piece]:
        flag, equals, value = word.partition("=")
        if equals and _FLAG.fullmatch(flag):
            yield _Piece(flag + equals, "syntax")
            word = value
        if word:
            yield _Piece(word, "argument", self.name)

    def in_condition(self, word: str) -> Iterator[_Piece]:
        yield _Piece(word, "test")

    def in_test(self, word: str) -> Iterator[_Piece]:
        yield _Piece(word, "test")
        if word in ("]", "]]"):
            self.mode = "argument"

    def in_sourced(self, word: str) -> Iterator[_Piece]:
        self.mode = "argument"
        yield _Piece(word, "sourced")

    def in_declaring(self, word: str) -> Iterator[_Piece]:
        match = _ASSIGNMENT.match(word)
        if match:
            yield from self.assignment(word, match)
            self.mode = "declaring" if word != match[0] else "value"
        elif word.startswith("="):
            self.mode = "value"
            yield _Piece(word, "value", self.name)
        elif _NAME.fullmatch(word):
            self.name = word
            yield _Piece(word, "name")
        else:
            yield _Piece(word, "argument")

    def in_naming(self, word: str) -> Iterator[_Piece]:
        yield _Piece(word, "name" if _NAME.fullmatch(word) else "argument")

    def in_numeric(self, word: str) -> Iterator[_Piece]:
        self.mode = "argument"
        yield _Piece(word, "syntax" if re.fullmatch(r"[0-9]{1,4}", word) else "argument")

    def in_variable(self, word: str) -> Iterator[_Piece]:
        self.mode, self.name = "value", word
        yield _Piece(word, "syntax" if _NAME.fullmatch(word) else "argument")

    def in_value(self, word: str) -> Iterator[_Piece]:
        if word in ("in", "="):
            yield _Piece(word, "syntax")
        else:
            yield _Piece(word, "value", self.name)

    def in_set(self, word: str) -> Iterator[_Piece]:
        """`set -e` of sh, `set path = (…)` of csh, `set -gx NAME …` of fish."""
        match = _ASSIGNMENT.match(word)
        if word.startswith(("-", "+")):
            yield _Piece(word, "argument")
        elif self.dialect == "sh":
            yield _Piece(word, "syntax" if word in _SET_WORDS else "argument")
        elif match:
            yield from self.assignment(word, match)
            self.mode = "value"
        else:
            yield from self.in_variable(word)

    def in_subject(self, word: str) -> Iterator[_Piece]:
        if word == "in":
            self.mode = "pattern"
            self.cases.append("!" + self.name)
            yield _Piece(word, "syntax")
        else:
            self.name = word
            yield _Piece(word, "test", word)

    def in_pattern(self, word: str) -> Iterator[_Piece]:
        if word == "esac":
            self.cases.pop()
            self.mode = "argument"
            yield _Piece(word, "syntax")
        else:
            yield _Piece(word, "pattern", self.cases[-1])

    def in_function(self, word: str) -> Iterator[_Piece]:
        self.mode = "argument" if self.dialect == "fish" else "command"
        yield _Piece(word, "function")

    def in_loader(self, word: str) -> Iterator[_Piece]:
        bare = word.strip("'\"")
        self.loading = self.loading or bare in _LOADING
        plain = self.loading and re.fullmatch(r"[A-Za-z0-9._/+-]{1,40}", bare)
        yield _Piece(word, "syntax" if plain else "argument")
