"""Makes mutants of functions: copies with one small defect each."""

import ast
import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType, ModuleType
from typing import NamedTuple

from dlhealth.actions import __all__ as ACTIONS  # noqa: N812

_RISKS = {"LOW": "MEDIUM", "MEDIUM": "HIGH", "HIGH": "LOW"}


class Mutant(NamedTuple):
    """A function whose code is replaced, or the name of a module's constant and its value."""

    kind: str
    line: int
    text: str
    """The source of what was changed."""
    module: ModuleType
    target: FunctionType | str
    replacement: object

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The defect is in the running program. Replacing the code reaches whoever holds the function by name."""
        if isinstance(self.target, str):
            before = getattr(self.module, self.target)
            setattr(self.module, self.target, self.replacement)
            try:
                yield
            finally:
                setattr(self.module, self.target, before)
        else:
            code = self.target.__code__
            assert isinstance(self.replacement, CodeType)
            self.target.__code__ = self.replacement
            try:
                yield
            finally:
                self.target.__code__ = code


def of_function(module: ModuleType, function: FunctionType) -> Iterator[Mutant]:
    """Every mutant of one function."""
    tree = ast.parse(inspect.getsource(module))
    first = function.__code__.co_firstlineno
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and min([node.lineno, *(d.lineno for d in node.decorator_list)]) == first:
            for kind, place, changed in _changed(node):
                changed.decorator_list = []
                if (code := _code(changed, module)) and code.co_freevars == function.__code__.co_freevars:
                    yield Mutant(kind, place.lineno, ast.unparse(place), module, function, code)
            return


def of_constant(module: ModuleType, name: str) -> Iterator[Mutant]:
    """Every mutant of a constant of a module."""
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            for kind, place, changed in _changed(node):
                text = compile(ast.fix_missing_locations(ast.Expression(changed.value)), "mutant", "eval")
                yield Mutant(kind, place.lineno, ast.unparse(place), module, name, eval(text, dict(vars(module))))


def used_by(module: ModuleType, owner: type, function: FunctionType) -> tuple[list[FunctionType], list[str]]:
    """A function with all functions of its module and methods of its class that it uses, and the constants."""
    functions, constants, ahead = [], [], [function]
    while ahead:
        current = ahead.pop()
        if current in functions:
            continue
        functions.append(current)
        for name in _names(current.__code__):
            value = getattr(module, name, None) or inspect.getattr_static(owner, name, None)
            value = getattr(value, "__func__", getattr(value, "fget", value))
            if isinstance(value, FunctionType) and value.__module__ == module.__name__:
                ahead.append(value)
            elif name in vars(module) and name.strip("_").isupper():
                constants.append(name)
    return functions, list(dict.fromkeys(constants))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _code(function: ast.FunctionDef, module: ModuleType) -> CodeType | None:
    """The code object of a function that was changed; annotations and defaults stay those of the real one."""
    source = ast.fix_missing_locations(ast.Module([function], []))
    compiled = compile(source, module.__file__ or "mutant", "exec")
    found = (c for c in compiled.co_consts if isinstance(c, CodeType) and c.co_name == function.name)
    return next(found, None)


Change = Callable[[ast.AST], None]


def _changed(root: ast.AST) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    """Kind, changed node as it was, and a copy of the whole with that change."""
    nodes = list(ast.walk(root))
    words = _wording(root)
    for number, node in enumerate(nodes):
        for kind, change in _changes(node, node in words):
            other = copy.deepcopy(root)
            change(next(n for i, n in enumerate(ast.walk(other)) if i == number))
            yield kind, node.target if isinstance(node, ast.comprehension) else node, other


def _changes(node: ast.AST, wording: bool) -> Iterator[tuple[str, Change]]:
    if isinstance(node, ast.If | ast.IfExp) and not wording:
        yield "negated if", _negate
    if isinstance(node, ast.comprehension):
        for number in range(len(node.ifs)):
            yield "negated if", lambda n, i=number: _set_item(n.ifs, i, _not(n.ifs[i]))
    if isinstance(node, ast.Tuple) and _is_of_actions(node):
        for number in range(len(node.elts)):
            yield "dropped action", lambda n, i=number: n.elts.pop(i)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Yield | ast.YieldFrom):
        yield "dropped yield", lambda n: setattr(n, "value", ast.YieldFrom(ast.Tuple([], ast.Load())))
    if isinstance(node, ast.Attribute) and node.attr in _RISKS and ast.unparse(node.value) == "Risk":
        yield "swapped risk", lambda n: setattr(n, "attr", _RISKS[n.attr])
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "Plan":
        for flag in ("reboot", "network"):
            yield "flipped flag", lambda n, f=flag: _flip(n, f)
    if isinstance(node, ast.Constant) and not wording and (other := _other(node.value)) is not None:
        yield "changed constant", lambda n, v=other: setattr(n, "value", v)


def _wording(root: ast.AST) -> set[ast.AST]:
    """What is no behaviour, or whose change every test notices: texts for people, annotations, the names of details. The
    flags of a plan have a kind of their own."""
    found: set[ast.AST] = set()
    for node in ast.walk(root):
        if isinstance(node, ast.JoinedStr) and any(isinstance(v, ast.Constant) and " " in v.value for v in node.values):
            found |= set(ast.walk(node))
        elif isinstance(node, ast.FormattedValue) and node.format_spec:
            found |= set(ast.walk(node.format_spec))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("Plan", "ByHand"):
            found |= set(ast.walk(node.args[0])) if node.args else set()
            found |= {k.value for k in node.keywords if k.arg in ("reboot", "network")}
        elif isinstance(node, ast.Subscript) or (
            isinstance(node, ast.Call) and ast.unparse(node.func).endswith("detail.get")
        ):
            key = node.slice if isinstance(node, ast.Subscript) else node.args[0]
            found |= {key} if isinstance(key, ast.Constant) and isinstance(key.value, str) else set()
        elif isinstance(node, ast.arguments):
            found |= set(ast.walk(node))
        elif isinstance(node, ast.FunctionDef) and node.returns:
            found |= set(ast.walk(node.returns))
    return found


def _other(value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str) and not any(c.isspace() for c in value):
        return f"{value}x"
    return None


def _is_of_actions(node: ast.Tuple) -> bool:
    if not isinstance(node.ctx, ast.Load):
        return False
    parts = [e.value if isinstance(e, ast.Starred) else e for e in node.elts]
    return any(isinstance(p, ast.Call) and ast.unparse(p.func) in ACTIONS for p in parts) or any(
        isinstance(e, ast.Starred) for e in node.elts
    )


def _not(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)


def _negate(node: ast.AST) -> None:
    assert isinstance(node, ast.If | ast.IfExp)
    node.test = _not(node.test)


def _flip(call: ast.AST, flag: str) -> None:
    assert isinstance(call, ast.Call)
    for keyword in call.keywords:
        if keyword.arg == flag:
            keyword.value = _not(keyword.value)
            return
    call.keywords.append(ast.keyword(flag, ast.Constant(True)))


def _set_item(items: list[ast.expr], number: int, value: ast.expr) -> None:
    items[number] = value
