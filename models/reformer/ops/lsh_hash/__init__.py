"""Angular locality-sensitive hashing: the definition and the fast version."""

from reformer.ops.lsh_hash.pytorch import lsh_hash, rotation_width
from reformer.ops.lsh_hash.reference import lsh_hash_reference

__all__ = ["lsh_hash", "lsh_hash_reference", "rotation_width"]
