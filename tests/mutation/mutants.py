"""The mutants of a source file: mutmut's operators, applied one at a time wherever a change could change behaviour.

Only the operators of mutmut are used. Its runner does not fit this package: it skips decorated functions and fields of
classes (our settings and their defaults), derives the name of a module from its path (`modeling/` is installed as
`sgm_hf.modeling`), and its trampolines would be saved with a model, as source files are.

Not mutated, because no test should pin them: annotations, docstrings, decorators, imports, `raise`, `warnings.warn`,
log messages, help texts, any other text of four words or more, `__all__`, blocks for type checkers, and `device=`,
which no test on a CPU can see. A text has one mutant ("XX" around it).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider, WhitespaceInclusivePositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_string

LEFT_ALONE = (
    m.Raise()
    | m.Annotation()
    | m.Decorator()
    | m.Import()
    | m.ImportFrom()
    | m.Call(func=m.Attribute(value=m.Name("logger") | m.Name("warnings")))
    | m.Arg(keyword=m.Name("metadata") | m.Name("help") | m.Name("desc") | m.Name("description"))
    # The tests run on a CPU only, where all tensors are on one device.
    | m.Arg(keyword=m.Name("device"))
    | m.If(test=m.Name("TYPE_CHECKING"))
    | m.Assign(targets=[m.AssignTarget(target=m.Name("__all__") | m.Name("logger"))])
    # `len(None)` and the like raise an error in every test of the line.
    | m.Call(func=m.Name("len") | m.Name("isinstance"))
    | m.Call(func=m.Name("TypeVar"))
)


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Args:
        file: The file, from the repository's root.
        number: Index among the mutants of this file.
        line: First line of the statement that is changed, from 1.
        last_line: Last line of it.
        at_import: Whether the changed code runs when the module is imported, not when a function is called.
        before: The first line that differs, in the original.
        after: The same line in the mutant.
        source: The whole mutated file.
    """

    file: str
    number: int
    line: int
    last_line: int
    at_import: bool
    before: str
    after: str
    source: str


def find_mutants(root: Path, file: str) -> list[Mutant]:
    """All mutants of a file (relative to the repository `root`); very few of them are not valid Python."""
    source = (root / file).read_text(encoding="utf-8")
    collector = _Collector(source)
    seen, mutants = {source}, []
    for node, other in collector.found:
        text = collector.replace(node, other)
        if text not in seen:
            seen.add(text)
            mutants.append(Mutant(file, len(mutants), *collector.place(node), *changed_lines(source, text), text))
    return mutants


class _Collector(cst.CSTVisitor):
    """Collects pairs of a node and its replacement by an operator."""

    def __init__(self, source: str):
        super().__init__()
        wrapper = MetadataWrapper(cst.parse_module(source))
        self.module, self.lines = wrapper.module, source.splitlines(keepends=True)
        self.positions = wrapper.resolve(PositionProvider)
        self.spans = wrapper.resolve(WhitespaceInclusivePositionProvider)
        self.parents = wrapper.resolve(ParentNodeProvider)
        self.found: list[tuple[cst.CSTNode, cst.CSTNode]] = []
        self.module.visit(self)

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Collect the mutants of a node; return False if its children are not mutated."""
        if m.matches(node, LEFT_ALONE) or is_prose(node):
            return False
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                changed = [other for other in operator(node) if not drops_prose(node, other)]
                self.found += [(node, other) for other in (changed[:1] if operator is operator_string else changed)]
        return True

    def replace(self, node: cst.CSTNode, other: cst.CSTNode) -> str:
        """The source with a node replaced by another."""
        span = self.spans[node]
        first, last = span.start.line - 1, span.end.line - 1
        before = "".join(self.lines[:first]) + self.lines[first][: span.start.column]
        after = self.lines[last][span.end.column :] + "".join(self.lines[last + 1 :])
        return before + self.module.code_for_node(other) + after

    def place(self, node: cst.CSTNode) -> tuple[int, int, bool]:
        """First and last line of the statement or block header around a node, and whether import runs it."""
        statement, at_import, child = None, True, node
        while not isinstance(child, cst.Module):
            parent = self.parents[child]
            if statement is None and isinstance(child, cst.SimpleStatementLine | cst.BaseCompoundStatement):
                statement = child
            if isinstance(parent, cst.FunctionDef) and child is parent.body:
                at_import = False
            child = parent
        whole = self.positions[statement or node]
        end = whole.end if isinstance(statement, cst.SimpleStatementLine) else self.positions[node].end
        return whole.start.line, end.line, at_import


def is_prose(node: cst.CSTNode) -> bool:
    """Whether a node is a text for people, of four words or more, e.g. a docstring."""
    return isinstance(node, cst.SimpleString | cst.ConcatenatedString) and str(node.evaluated_value).count(" ") > 2


def drops_prose(node: cst.CSTNode, other: cst.CSTNode) -> bool:
    """Whether a mutant changes an argument of a call that is not to be mutated, e.g. a help text or a device."""
    if not isinstance(node, cst.Call) or not isinstance(other, cst.Call):
        return False
    kept = {id(argument) for argument in other.args}
    dropped = [argument for argument in node.args if id(argument) not in kept]
    return any(m.matches(argument, LEFT_ALONE) or is_prose(argument.value) for argument in dropped)


def changed_lines(before: str, after: str) -> tuple[str, str]:
    """The first line of each text that differs by more than white space."""
    pairs: Iterator[tuple[str, str]] = zip(before.splitlines(), after.splitlines(), strict=False)
    return next(((one.strip(), other.strip()) for one, other in pairs if one.strip() != other.strip()), ("", ""))
