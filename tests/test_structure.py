"""How hard the tree is to read, in numbers that may only shrink, and what keeps the two packages apart.

Guards against what came about unnoticed, a harmless line at a time: 23 files of the core that import each other in a
circle behind TYPE_CHECKING, files and functions too long to be read at a sitting, 93 settings of which 51 are chosen
by nobody, comments that cite documents which nobody can open, a command line that reaches into the core's insides.
`pytest tests/test_structure.py -s` prints every number beside its goal.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"reformer": ROOT / "models" / "reformer", "reformer_cli": ROOT / "reformer_cli"}
FOLDERS = [ROOT / name for name in ("models", "reformer_cli", "tests", "benchmarks", "docs", "configs")]

# name: (today, goal). Lower the first wherever the printed number lies below it. Raised are two alone: settings by one
# that an issue names (data.ruby, data.unwrap, data.duplicates), lines and entries by what
# it adds (novelty, serve and its speed, one token on a GPU).
CEILINGS = {
    "import circles": (0, 0),
    "files in the largest circle": (0, 0),
    "entries of models/reformer": (17, 17),
    "entries of reformer_cli": (17, 17),
    "settings": (63, 63),
    "Python files over 300 lines": (0, 0),
    "functions over 60 lines (Triton 100)": (0, 0),
    "lines of README.md": (145, 150),
    "citations of what is not in the repository": (0, 0),
    "paths in comments that do not exist": (0, 0),
    "isinstance of a sub-layer or decoding state": (0, 0),
    "imports of the core's insides": (0, 0),
    "lines of the packages (Python and C)": (35_406, 20_500),
}
PUBLIC = {"config", "checkpoint", "sampling", "memory", "analysis", "rehash", "backends"}  # of the core
CITED = re.compile(r"design[ ]section|\.\.[/]shared", re.IGNORECASE)  # the brackets: this line is no citation
# A name alone may be a file of the user's (novel.txt, config.yaml); under a folder of ours it is one of ours.
PATH = re.compile(r"(?<![\w/.*-])(?:[\w.-]+/)*[\w-]+\.(?:py|md|c|h)\b|\b(?:configs|docs|tests|benchmarks)/[\w./-]*\w")
THEIRS = "modeling_reformer.py"  # of transformers
TEXTS = (".py", ".c", ".h", ".md", ".yaml", ".toml", "")  # the last: Makefile

Found = list[str]  # where each counted thing is, for who has to mend it


def files(*suffixes: str, under: list[Path] | None = None) -> list[Path]:
    """Our own files, nothing that was compiled or installed."""
    top = [] if under else [path for path in ROOT.iterdir() if path.is_file()]
    found = [path for folder in under or FOLDERS for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in found + top if path.suffix in suffixes and not made(path))


def made(path: Path) -> bool:
    """By a tool, which keeps it in a folder of its own."""
    return any(part == "__pycache__" or part.startswith(".") for part in path.relative_to(ROOT).parts[:-1])


def place(path: Path, line: int | None = None) -> str:
    return path.relative_to(ROOT).as_posix() + (f":{line}" if line else "")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(parsed(path)))


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, of both packages."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in files(".py", under=[folder]):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


@cache
def imports(module: str) -> list[tuple[str, int]]:
    """(our module that is imported, line): at the top, under TYPE_CHECKING and inside functions alike."""
    path = modules()[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = []
    for node in nodes(path):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        for name in names:
            while name and name not in modules():  # a class or function: the module that it is taken from
                name = name.rpartition(".")[0]
            if name:
                found.append((name, getattr(node, "lineno", 0)))
    return found


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of more than one module in which each reaches each (Tarjan), the largest first."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(at: str) -> None:
        order[at] = low[at] = len(order)
        stack.append(at)
        for to in sorted(edges[at]):
            if to not in order:
                visit(to)
                low[at] = min(low[at], low[to])
            elif to in stack:
                low[at] = min(low[at], order[to])
        if low[at] == order[at]:
            group = stack[stack.index(at) :]
            del stack[stack.index(at) :]
            found.append(sorted(group))

    for module in edges:
        if module not in order:
            visit(module)
    return sorted((group for group in found if len(group) > 1), key=len, reverse=True)


def import_circles() -> Found:
    found = circles({module: {name for name, _ in imports(module)} for module in modules()})
    return [" ".join(group) for group in found]


def largest_circle() -> Found:
    return next((line.split() for line in import_circles()), [])


def entries(package: str) -> Found:
    """Files and folders directly in a package; a folder that only holds what was compiled is none."""
    folder = PACKAGES[package]
    found = [path for path in folder.rglob("*") if path.is_file() and not made(path)]
    return sorted({path.relative_to(folder).parts[0] for path in found})


def settings() -> Found:
    """All but model.vocab_size, which describe leaves out: the tokenizer says it."""
    from reformer_cli.config import SECTIONS, describe

    return [f"{section}.{name}" for section in SECTIONS for name, *_ in describe(section)]


def long_files() -> Found:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in files(".py")}
    return [f"{place(path)} {length}" for path, length in lengths.items() if length > 300]


def long_functions() -> Found:
    found = []
    for path in files(".py"):
        for node in nodes(path):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) + 1 - node.lineno
                kernel = any("triton.jit" in ast.unparse(decorator) for decorator in node.decorator_list)
                if length > (100 if kernel else 60):
                    found.append(f"{place(path, node.lineno)} {node.name} {length}")
    return found


def lines_of(paths: list[Path]) -> Found:
    return [line for path in paths for line in path.read_text("utf-8").splitlines()]


def citations() -> Found:
    found = []
    for path in files(*TEXTS):
        if path.name != "LOG.md":  # its entries are dated facts
            lines = enumerate(path.read_text("utf-8").splitlines(), 1)
            found += [f"{place(path, number)} {line.strip()}" for number, line in lines if CITED.search(line)]
    return found


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of comments and docstrings."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string
        for node in nodes(path):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (said := ast.get_docstring(node)):
                yield node.body[0].lineno, said
    else:
        pattern = r"/\*.*?\*/|//[^\n]*" if path.suffix in (".c", ".h") else r"(?m)(?:^|\s)#[^\n]*"
        for match in re.finditer(pattern, text, re.DOTALL if path.suffix in (".c", ".h") else 0):
            yield text.count("\n", 0, match.start()) + 1, match.group()


def missing_paths() -> Found:
    parts = [path.relative_to(ROOT).parts for path in files(*TEXTS, ".csv", ".txt")]
    here = {"/".join(names[n:]) for names in parts for n in range(len(names))}
    found = []
    for path in files(".py", ".c", ".h", ".yaml", ".toml", ""):
        for line, text in comments(path):
            for cited in PATH.findall(text):
                known = (ROOT / cited).exists() or cited in here
                if not known and not cited.endswith(THEIRS):
                    found.append(f"{place(path, line)} {cited}")
    return found


@cache
def kinds() -> set[str]:
    """Classes of the core that are modules, caches, states or couplings: what a caller should not have to ask for."""
    bases = {"Module": set[str]()}
    for path in files(".py", under=[PACKAGES["reformer"]]):
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {ast.unparse(base).split("[")[0].rpartition(".")[2] for base in node.bases}
    found = {name for name in bases if re.search(r"^Module$|(State|Cache|Coupling|Composite)$", name)}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return found


def kind_questions() -> Found:
    found = set()
    for path in modules().values():
        for node in nodes(path):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                asked = {getattr(n, "id", getattr(n, "attr", "")) for n in ast.walk(node.args[1])}
                if asked & kinds():
                    found.add(place(path, node.lineno))
    return sorted(found)


def inside_imports() -> Found:
    found = {}
    for module, path in modules().items():
        for name, line in imports(module) if module.startswith("reformer_cli") else ():
            if name.startswith("reformer.") and name.split(".")[1] not in PUBLIC:
                found[place(path, line)] = name
    return [f"{where} {name}" for where, name in found.items()]


MEASURES: list[Callable[[], Found]] = [  # in the order of the table
    import_circles, largest_circle, lambda: entries("reformer"), lambda: entries("reformer_cli"), settings, long_files,
    long_functions, lambda: lines_of([ROOT / "README.md"]), citations, missing_paths, kind_questions, inside_imports,
    lambda: lines_of(files(".py", ".c", ".h", under=list(PACKAGES.values()))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "measure"), list(zip(CEILINGS, MEASURES, strict=True)), ids=list(CEILINGS))
def test_only_shrinks(name: str, measure: Callable[[], Found]) -> None:
    found, (today, goal) = measure(), CEILINGS[name]
    print(f"\n{name:45} {len(found):>6,}   ceiling {today:>6,}   goal {goal:>6,}", end=" ")
    assert len(found) <= today, f"{name}: {len(found)} > {today}\n" + "\n".join(found[:60])


def test_circles_are_found() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": {"d"}, "f": {"a", "f"}}
    assert circles(edges) == [["a", "b", "c"], ["d", "e"]]


def test_parts_import_downwards_only() -> None:
    # training, sampling and evaluation know neither each other nor the commands, which put them together.
    above = {"commands", "workflows", "runs", "app"}
    parts = {"training", "sampling", "evaluation"}
    for module in modules():
        if (part := (*module.split("."), "")[1]) in parts and module.startswith("reformer_cli."):
            taken = {name.split(".")[1] for name, _ in imports(module) if name.startswith("reformer_cli.")}
            assert not taken & (above | parts - {part}), module
