"""Compile every kernel for a compute capability, and print what each takes: python tests/builders/compile_kernels.py 90

Run without TRITON_INTERPRET. Needs no GPU. More arguments: those kernels alone whose names hold one of them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from reformer.ops.bucket_attention import triton_kernels as attention
from reformer.ops.bucket_attention import triton_launch
from reformer.ops.cross_entropy import triton_kernels as loss
from reformer.ops.fused_attention import triton_kernels as fused
from reformer.ops.fused_attention.launch import tiles_for
from reformer.ops.fused_decode import launch as decode_launch
from reformer.ops.fused_decode import triton_kernels as decode
from reformer.ops.fused_decode import triton_products as decode_products
from reformer.ops.fused_rows import triton_kernels as fused_rows
from reformer.ops.fused_rows.launch import ROWS
from reformer.ops.lsh_hash import triton_kernels as lsh
from reformer.ops.norm_rope_relu import triton_kernels as rows
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
FLOATS = ("factor", "eps", "tiny", "units", "unit", "cap", "share", "longest")
Case = tuple[str, Any, dict[str, str], dict[str, Any], dict[str, int]]


def attention_cases() -> Iterator[Case]:
    for d, dtype, recent, earlier in (
        (64, torch.bfloat16, True, 0),
        (64, torch.bfloat16, True, 2),
        (128, torch.bfloat16, True, 0),
        (32, torch.float16, False, 0),
        (64, torch.float32, True, 0),
        (128, torch.float32, True, 1),
    ):
        t, low, sums = triton_launch.tiling(d, dtype), NAMES[dtype], "fp32" if earlier else NAMES[dtype]
        pointers = dict.fromkeys(("q", "k", "v", "d_out"), low) | dict.fromkeys(("out", "dq", "dk", "dv"), sums)
        pointers |= {"lse": "fp32", "delta": "fp32", "order": "i64", "reach": "i32", "u": "i32", "windows": "i32"}
        fixed = {
            "D": d, "DV": d, "BLOCK_D": d, "BLOCK_DV": d, "BLOCK": t.block, "TILE": t.tile, "WINDOWS": recent,
            "ITSELF": 0, "EARLIER": earlier, "FIRST": not earlier,
        }  # fmt: skip
        options = {"num_warps": t.warps, "num_stages": t.stages}
        name = f"attention {d} {low} {'windows' if recent else 'chunks'} round {earlier}"
        yield f"{name} forward", attention._forward, pointers, fixed, options
        yield f"{name} backward", attention._backward, pointers, fixed | {"SCAN": 64, "SHARED": recent}, options


def hash_cases() -> Iterator[Case]:
    for d, dtype, factors in ((64, torch.bfloat16, (64, 128)), (128, torch.float32, (512, 512))):
        pointers = {"x": NAMES[dtype], "rotations": "fp32", "hash_mean": "fp32", "warm": "fp32", "buckets": "i32"}
        fixed = {
            "D": d, "BLOCK_D": d, "BLOCK": lsh.BLOCK, "COLUMNS": lsh.MOST_COLUMNS, "FACTORS": factors,
            "N_FACTORS": len(factors), "CENTRED": True, "LINES": d == 64, "COOLEST": 1e-3,
        }  # fmt: skip
        yield (
            f"hash {d} {NAMES[dtype]} {factors}",
            lsh._hash,
            pointers,
            fixed,
            {"num_warps": lsh.WARPS, "num_stages": 1},
        )


def row_cases() -> Iterator[Case]:
    wide = {"x": "fp32", "inverse": "fp32", "dx": "fp32", "lengths": "fp32", "scale": "fp32", "phase": "fp32"}
    wide |= {
        "d_scale": "fp32",
        "stream": "i32",
        "bad": "i32",
        "targets": "i64",
        "nats": "fp32",
        "logits": "fp32",
        "count": "i64",
    }
    low = dict.fromkeys(("dy", "y", "raw", "d_raw", "grad", "h", "square", "d"), "bf16")
    of_rows, of_heads = rows._of_rows(256), rows._of_rows(64)
    turned, block = {"SCALED": True, "TURNED": True}, {"BLOCK": rows.FLAT}
    for function, out, fixed in (
        (rows._normalise, "bf16", of_rows), (rows._normalise_back, "", of_rows),
        (rows._split, "bf16", of_heads | turned), (rows._split_back, "bf16", of_heads | turned),
        (rows._squared_relu, "", block),
        (rows._squared_relu_back, "", block), (rows._read, "fp32", block), (rows._add, "", block | {"GUARDED": True}),
        (loss._cross_entropy, "", {"COLUMNS": 512, "CAPPED": True, "MEAN": True}),
    ):  # fmt: skip
        given = {n: t for n, t in (wide | low | {"out": out}).items() if n in function.arg_names}
        yield f"rows {function.__name__}", function, given, fixed, {"num_warps": 4}


def fused_cases() -> Iterator[Case]:
    """A fused layer's: 9 local and 3 LSH heads of 64, and heads of 128."""
    low = "q k v gate out d_out dq dk dv raw d_raw keys parts added dy y gates d_gates h d square low"
    wide = "lse lses delta lengths phase warm warm_lsh conv means small sink inverse dx"
    given = dict.fromkeys(low.split(), "bf16") | dict.fromkeys(wide.split(), "fp32") | {"index": "i64"}
    given |= {"x": "bf16", "seed": "i64"} | dict.fromkeys(
        ["order", "reach", "u", "starts", "stream", "other", "bad", "sorted_keys"], "i32"
    )
    for d in (64, 128):
        for hashed, back in ((False, False), (False, True), (True, False), (True, True)):
            t = tiles_for(d, torch.bfloat16, back, hashed)
            options = {"num_warps": t.warps, "num_stages": t.stages}
            name = f"fused {'LSH' if hashed else 'local'} {d} {'backward' if back else 'forward'}"
            fixed = {"D": d, "BLOCK": t.block, "TILE": t.tile, "ITSELF": 1 - hashed, "NEXT": int(hashed)}
            fixed |= {"SORTED": hashed, "REACH": hashed, "EARLIER": 2 * hashed}
            fixed |= {"SCAN": 64 * hashed} if back else {}
            yield name, fused._attend_back if back else fused._attend, given, fixed, options
    heads = {"D": 64, "ROWS": ROWS, "LOCAL": 9, "LSH": 3}
    several = heads | {"TAPS": 3, "TURNED": True, "DOCUMENTS": False, "COOLEST": 1e-3}
    rounds = {"D": 64, "ROWS": ROWS, "LSH": 3, "ROUNDS": 2}
    of_rows = rows._of_rows(768)
    for function, fixed in (
        (fused_rows._split_heads, several), (fused_rows._split_heads_back, several | {"ROUNDS": 2}),
        (fused_rows._merge_rounds, rounds), (fused_rows._gate_back, heads | {"PAD": 52}),
        (fused_rows._add_norm_stream, of_rows | {"ADD": True, "BOTH": False}),
        (fused_rows._norm_stream_back, of_rows | {"FIRST": False, "COPY": True}),
        (fused_rows._dropout, {"QUARTER": rows.FLAT // 4}),
        (fused_rows._squared_relu_inplace, {"BLOCK": rows.FLAT}),
        (fused_rows._squared_relu_inplace_back, {"BLOCK": rows.FLAT}),
        (fused._order_keys, {"BLOCK": 256, "STEPS": 6, "DOCUMENTS": False}),
    ):  # fmt: skip
        known = {n: kind for n, kind in given.items() if n in function.arg_names}
        yield f"fused {function.__name__}", function, known, fixed, {"num_warps": 4}


def decode_cases() -> Iterator[Case]:
    """One more token: the novel's sizes (one local and one LSH head of 64), the default ones of d_model 768 and 12
    heads with a far round, and heads of 128 with a wide window; one row, and rows for tensor cores."""
    wide = (
        "embedding lines characters ends phase raw out warm keys values warm_lsh conv sink rotations hash_mean inputs"
    )
    wide += " pairs w w0 w1 w2 w3 x h bias logits"
    whole, long = "first second stream other bad ids flags", "tokens line seen times counts last"
    pointers = {n: kind for names, kind in ((wide, "fp32"), (whole, "i32"), (long, "i64")) for n in names.split()}
    pointers |= {"fits": "i1", "speeds": "fp64"}
    for name, d_model, local, hashed, d, rounds, window, capacity in (
        ("novel", 256, 1, 1, 64, 1, 64, 63), ("default", 768, 9, 3, 64, 3, 128, 63),
        ("wide", 512, 2, 2, 128, 2, 1024, 255),
    ):  # fmt: skip
        heads = {"D": d, "LOCAL": local, "LSH": hashed, "TAPS": 3, "T": 4, "ROUNDS": rounds, "TURNED": True}
        r = triton.next_power_of_2(rounds)
        factors = (64, 64) if rounds > 1 else (64,)
        heads |= {"WINDOW": window, "CAPACITY": capacity, "R": r, "FACTORS": factors, "N_FACTORS": len(factors)}
        heads |= {"TILE": min(decode_launch.NUMBERS // d, triton.next_power_of_2(max(window, rounds * capacity)))}
        heads |= {"COLUMNS": min(32, decode_launch.NUMBERS // (d * r)), "COOLEST": 1e-3}
        half = {"HALF": d // 2, "BLOCK_HALF": d // 2, "LINES": True, "TURNED": True}
        begun = {"D": d_model, "BLOCK_D": triton.next_power_of_2(d_model)} | half
        found = [(decode._begin, begun, {"num_warps": 4})]
        found += [(decode._attend_new, heads, {"num_warps": decode_launch.WARPS, "num_stages": 1})]
        qkv = {"N0": 3 * local * d, "N1": 2 * hashed * d, "N2": local, "N3": hashed}
        for n in (1, 64):
            for function, k, fixed in (
                (decode_products._to_heads, d_model, {"K": d_model} | qkv),
                (decode_products._widen, d_model, {"K": d_model, "N": 4 * d_model}),
                (decode_products._onto_stream, local * d, {"K0": local * d, "K1": hashed * d, "N": d_model}),
                (decode_products._logits, d_model, {"K": d_model, "N": 320, "BIASED": True, "CAPPED": True}),
            ):
                tile, _ = decode_launch.tiles(n, k, [d_model])
                options = {name: tile.pop(name) for name in ("num_warps", "num_stages") if name in tile}
                flags = {"FLAGS": 13, "BLOCK_FLAGS": 16} if function is decode_products._logits else {}
                found.append((function, fixed | flags | tile, options))
        for function, fixed, options in found:
            given = {n: kind for n, kind in pointers.items() if n in function.arg_names}
            if function is decode_products._logits:
                given |= {"first": "i32", "second": "i32"}
            rows = f" {fixed['ROWS']} rows" if "ROWS" in fixed else ""
            yield f"decode {name} {function.__name__}{rows}", function, given, fixed, options


def build(case: Case, capability: int) -> str:
    """One line: registers of a thread, shared memory, what is spilled."""
    name, function, pointers, fixed, options = case
    kind = {n: "constexpr" if n in fixed else f"*{pointers[n]}" if n in pointers else "i32" for n in function.arg_names}
    kind |= {n: "fp32" for n in FLOATS if n in kind and n not in pointers}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(function.arg_names) if n in pointers}
    source = ASTSource(function, kind, fixed, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    (tool,) = Path(triton.__file__).parent.rglob("cuobjdump")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(compiled.asm["cubin"])
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"(REG|STACK):(\d+)", usage))
    memory = f"{found['REG']} registers, {compiled.metadata.shared} bytes shared, {found['STACK']} bytes spilled"
    return f"{name}, sm_{capability}: {memory}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        triton.knobs.cache.dir = cache
        for one in (*attention_cases(), *hash_cases(), *row_cases(), *fused_cases(), *decode_cases()):
            if not sys.argv[2:] or any(part in one[0] for part in sys.argv[2:]):
                print(build(one, int(sys.argv[1])), flush=True)
