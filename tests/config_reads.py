"""Which fields of the configuration a program reads, found in its source.

Followed are `config.a.b`, `this.config.a.b`, groups that have a name of their own
(`data = config.data`), groups handed to a function whose parameter is a ConfigDict, and
`**config.a`. What is read by a name that only the run knows, `config.a[name]`, is told
apart, for a test to say which names these are.
"""

import ast
import dataclasses
from collections.abc import Iterable

_WHOLE = ""
_METHODS = {"to_dict", "to_json"}


@dataclasses.dataclass
class Reads:
    """Fields by full name.

    Attributes:
      fields: that are read and defined.
      unknown: what is read and is neither field nor group.
      by_name: groups that are read by a name in a variable.
    """

    fields: set[str] = dataclasses.field(default_factory=set)
    unknown: set[str] = dataclasses.field(default_factory=set)
    by_name: set[str] = dataclasses.field(default_factory=set)


def reads(sources: Iterable[str], fields: Iterable[str]) -> Reads:
    """What is read in any of the sources, where there are these fields."""
    fields = set(fields)
    trees = [ast.parse(source) for source in sources]
    handed: dict[tuple[str, str], str] = {}
    while True:
        found, before = Reads(), dict(handed)
        for tree in trees:
            _Reader(found, fields, trees, handed).visit(tree)
        if handed == before:
            return found


class _Reader(ast.NodeVisitor):
    """Walks a module in the order of its source and keeps what each name holds.

    handed: (function, parameter) → the group that some call gives it.
    """

    def __init__(
        self,
        found: Reads,
        fields: set[str],
        trees: list[ast.Module],
        handed: dict[tuple[str, str], str],
    ):
        self._found, self._fields, self._handed = found, fields, handed
        self._groups = {n.rpartition(".")[0] for n in fields} | {_WHOLE}
        self._functions = [
            node
            for tree in trees
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
        ]
        self._names: dict[str, str] = {}
        self._modules: set[str] = set()

    def visit_Import(self, node):
        self._modules |= {(a.asname or a.name).split(".")[0] for a in node.names}

    def visit_ImportFrom(self, node):
        self._modules |= {a.asname or a.name for a in node.names}

    def visit_FunctionDef(self, node):
        outside = dict(self._names)
        for argument in (*node.args.args, *node.args.kwonlyargs):
            self._names.pop(argument.arg, None)
            annotation = argument.annotation
            if annotation is not None and "ConfigDict" in ast.unparse(annotation):
                given = self._handed.get((node.name, argument.arg), _WHOLE)
                self._names[argument.arg] = given
        self.generic_visit(node)
        self._names = outside

    def visit_Assign(self, node):
        pairs = []
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs += zip(target.elts, node.value.elts, strict=True)
            else:
                pairs.append((target, node.value))
        held = [(target, self._path(value)) for target, value in pairs]
        self.visit(node.value)
        for target, path in held:
            if isinstance(target, ast.Name):
                self._names.pop(target.id, None)
                if path in self._groups:
                    self._names[target.id] = path

    def visit_Call(self, node):
        name = ast.unparse(node.func).rpartition(".")[2]
        for function in self._functions:
            if function.name == name:
                parameters = [a.arg for a in function.args.args]
                pairs = [*zip(parameters, node.args, strict=False)]
                pairs += [(k.arg, k.value) for k in node.keywords]
                for parameter, value in pairs:
                    path = self._path(value)
                    if path and path in self._groups:
                        self._handed[name, parameter] = path
        for keyword in node.keywords:
            path = None if keyword.arg else self._path(keyword.value)
            if path in self._groups:
                self._found.fields |= {
                    field for field in self._fields if field.startswith(f"{path}.")
                }
        self.generic_visit(node)

    def visit_Attribute(self, node):
        path = self._path(node)
        if path in self._fields:
            self._found.fields.add(path)
        elif path is not None and path not in self._groups:
            self._found.unknown.add(path)
        self.generic_visit(node)

    def visit_Subscript(self, node):
        path = self._path(node)
        if path in self._fields:
            self._found.fields.add(path)
        elif not isinstance(node.slice, ast.Constant):
            group = self._path(node.value)
            if group in self._groups:
                self._found.by_name.add(group)
        self.generic_visit(node)

    def _path(self, node: ast.AST) -> str | None:
        """The group or field that an expression stands for; None: neither."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            inner, name = node.value, node.slice.value
        elif isinstance(node, ast.Attribute):
            inner, name = node.value, node.attr
            owner = inner.id if isinstance(inner, ast.Name) else ""
            if name in ("config", "_config") and owner not in self._modules:
                return _WHOLE
        else:
            return None
        path = self._path(inner)
        if path not in self._groups or name in _METHODS:
            return None
        return f"{path}.{name}".removeprefix(".")
