"""What all tests share."""

from __future__ import annotations

import os
import random
import re
import signal
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import pytest
import torch
from builders.faults import often  # noqa: F401
from builders.programs import _made, kept, reformer, run, starter, text  # noqa: F401  # fixtures of the whole suite

# Two, so that what threads share is tested; one is faster where others use the machine.
torch.set_num_threads(int(os.environ.get("TEST_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")))
if "PYTEST_XDIST_WORKER" in os.environ:  # programs that tests start: threads that wait for one without a core spin
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples each time: whoever changes something else learns nothing from a text that fails once in a hundred
# runs. HYPOTHESIS_PROFILE=other draws others.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("other", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# A job in the background is started with Ctrl-C ignored, and so would be every program that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if not torch.cuda.is_available():  # before triton is imported: its interpreter runs the kernels
    os.environ.setdefault("TRITON_INTERPRET", "1")
    if find_spec("triton") is not None:
        import triton  # noqa: F401  # now, since its own functions are what the variable says at this moment


# What `make test` leaves to `make test-all`: the same thing again at another size, width, type or variant. Of each test
# the variants stay that have found bugs of their own. Node ids; on a GPU all of the kernels' tests are run.
SLOW = re.compile(
    r"""test_inference.py::(
            test_pieces_\w+\[(1|1000)-(?!far\ round|groups\ of\ 3)
            |test_pieces_\w+\[7-(one\ slice|approximate|lsh,|line\ positions\])
            |test_float32_to_rounding\[(?!default).*-torch
            |test_later_tokens_\w+\[(?!default|far\ round|groups\ of\ 3|full)
            |test_rows_of_\w+\[dtype0-(?!default|groups\ of\ 3)
        )
        |test_autograd.py::(
            test_gradients_are_\w+\[dtype[12]-(?!default)
            |test_logits_and_loss_\w+\[(?!default|chunked|groups\ of\ 3|full)
            |test_24_layers_\w+\[dtype1
        )
        |test_bucket_attention_triton.py::(
            test_recent\[(same-\w+-\d-67|next-alone-1-67|same-always-\d-2|[\w-]+-131)-cpu
            |test_published\[(always-67|\w+-131)-cpu
            |test_widths_and_types\[(48-\w+|128-\w+|32-dtype1|64-dtype[02])-cpu
            |test_(every_tiling|windows_wider_\w+|gradients_repeat_\w+)\[cpu
        )
        |test_fused.py::test_a_fused_layer_\w+\[(a\ far\ round|lsh\ alone)-cpu
        |test_gpu_dry_run.py::test_every_part
        |test_torch_compile.py::test_an_exported
        |test_norm_rope_relu_triton.py::test_(a_model_\w+\[chunked-cpu|rebuilt_\w+\[cpu|one_token_\w+\[cpu-lsh)
        |test_lsh_hash.py::test_triton_gives_the_definition\[factors[13]-cpu
        |test_bucket_attention.py::test_native_over_its_\w+\[next-windows2
        |test_convert.py::test_(the_cards_code_loads_the_export\[transformers|fine_tuning_with_a_longer_context)
        |test_from_transformers.py::test_configurations_in_\w+\[(?![0-3]\])
        |test_train.py::test_decay_is_chosen_\w+\[adafactor
        |test_subword.py::test_a_small_vocabulary_\w+\[unigram
    """,
    re.VERBOSE,
)


@pytest.hookimpl(tryfirst=True)  # before those marked slow are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SLOW.search(item.nodeid):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the core's C is compiled, once for all programs that tests start."""
    folder = tmp_path_factory.mktemp("native")
    folder.chmod(0o700)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, _compiled: Path) -> None:
    """No test reads or leaves anything in the user's cache."""
    cache = tmp_path_factory.mktemp("cache")
    (cache / "reformer").mkdir()
    (cache / "reformer" / "native").symlink_to(_compiled)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(autouse=True)
def _no_starter(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test begins with the real starter unawares: what a run comes out as would be its weights' doing."""
    monkeypatch.setattr("reformer_cli.runs.starter.FOLDERS", ())


@pytest.fixture(autouse=True)
def _same_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds that nobody gave differ from call to call, but not from one run of the tests to the next."""
    monkeypatch.setattr("secrets.randbelow", random.Random(0).randrange)


# Texts that are too large for the repository; tests that need one are left out where it is not.
CORPORA = Path(os.environ.get("REFORMER_CORPORA", Path(__file__).parents[2] / "shared" / "corpora"))


@pytest.fixture
def novel() -> Path:
    """Crime and Punishment."""
    return _there(CORPORA / "crime-and-punishment.txt")


@pytest.fixture
def library() -> Path:
    """100 novels of Project Gutenberg."""
    return _there(CORPORA / "library")


@pytest.fixture
def cases() -> Path:
    """Small files that other programs read wrongly."""
    return _there(CORPORA.parent / "cases")


def _there(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path.name} is not there: REFORMER_CORPORA says where corpora are")
    return path
