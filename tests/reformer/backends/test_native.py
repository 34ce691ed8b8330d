"""The C for the CPU is compiled where it can be, and missed where it cannot."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from builders import forked
from builders.models import small, tokens
from reformer.backends.dispatch import choose
from reformer.backends.native import library
from reformer.ops.norm_rope_relu import rows_for

needs_compiler = pytest.mark.skipif(library.library() is None, reason=library.problem())
COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
SAYS = "from reformer.backends.native import library; print(library.library() is not None, library.problem())"


@pytest.fixture
def anew() -> Iterator[None]:
    """The library is looked for again, and once more afterwards."""
    library._load.cache_clear()
    yield
    library._load.cache_clear()


def says(folder: Path, **environment: str) -> str:
    """What a process that has not looked for the library finds, with a cache of its own."""
    process = forked.start(forked.code, SAYS, cwd=folder, environment={"XDG_CACHE_HOME": str(folder)} | environment)
    assert process.wait() == 0, process.err
    return process.out.decode()


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
def test_it_compiles_here() -> None:
    # A warning in CI that nobody reads would be a program several times slower.
    assert library.library() is not None, library.problem()


@pytest.fixture
def quick(tmp_path: Path) -> str:
    """A compiler that is soon done."""
    path = tmp_path / "quick-cc"
    path.write_text(f'#!/bin/sh\nexec {COMPILER} "$@" -O0\n')
    path.chmod(0o755)
    return str(path)


@needs_compiler
def test_compiled_once_and_found_again(tmp_path: Path, quick: str) -> None:
    assert says(tmp_path, CC=quick).startswith("True")
    (compiled,) = (tmp_path / "reformer" / "native").iterdir()
    before = compiled.stat().st_mtime_ns
    assert says(tmp_path, CC=quick).startswith("True")
    assert compiled.stat().st_mtime_ns == before
    assert not stat.S_IMODE(compiled.parent.stat().st_mode) & 0o077  # nobody else may put code there


@pytest.mark.slow
@needs_compiler
def test_two_processes_compile_at_once(tmp_path: Path) -> None:
    given = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    both = [forked.start(forked.code, SAYS, cwd=tmp_path, environment=given) for _ in range(2)]
    assert all(p.wait() == 0 and p.out.startswith(b"True") for p in both)
    assert len(list((tmp_path / "cache" / "reformer" / "native").iterdir())) == 1


@needs_compiler
def test_a_cache_that_is_not_ours_alone_is_not_used(tmp_path: Path, quick: str) -> None:
    (tmp_path / "open" / "reformer" / "native").mkdir(parents=True)
    (tmp_path / "open" / "reformer" / "native").chmod(0o777)
    (tmp_path / "reformer").touch()  # and one that cannot be made
    for cache in (tmp_path / "open", tmp_path):
        assert says(cache, CC=quick).startswith("True")
    assert not list((tmp_path / "open" / "reformer" / "native").iterdir())


def test_a_compiler_that_fails(tmp_path: Path) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\ntest $1 = --version || { echo no such instruction >&2; exit 1; }\n")
    broken.chmod(0o755)
    found = says(tmp_path, CC=str(broken))
    assert found.startswith("False")
    assert "could not compile it (no such instruction)" in found


def test_without_a_compiler_torch_does_it(anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    x = torch.zeros(2, 3)
    assert choose("auto", x) == "torch"
    assert rows_for("auto", x).__name__ == "reformer.ops.norm_rope_relu.pytorch"
    assert small().loss(tokens(50), tokens(50)).isfinite()
    with pytest.raises(ValueError, match="no C compiler was found"):
        choose("native", x)
    with pytest.raises(ValueError, match="no C compiler was found"):
        small(backend="native").loss(tokens(50), tokens(50))


@needs_compiler
def test_what_auto_takes_and_what_native_refuses() -> None:
    assert choose("auto", torch.zeros(1)) == "native"
    assert choose("auto", torch.zeros(1).bfloat16()) == "native"
    assert choose("auto", torch.zeros(1).double()) == "torch"
    assert choose("torch", torch.zeros(1)) == "torch"
    with pytest.raises(ValueError, match="takes float32 or bfloat16 on a CPU"):
        choose("native", torch.zeros(1).double())
    with torch.autocast("cpu", torch.float16):
        assert rows_for("auto", torch.zeros(1)).__name__ == "reformer.ops.norm_rope_relu.pytorch"


@needs_compiler
def test_one_backend_is_the_other() -> None:
    logits = []
    for backend in ("native", "torch"):
        model = small(backend=backend)
        loss = model.loss(tokens(300), tokens(300, seed=1))
        logits.append([loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))])
    for a, b in zip(*logits, strict=True):
        assert (a - b).abs().max() < 1e-5 * max(1, b.abs().max())
