"""Attention among positions that share a bucket: the definition and the fast versions."""

from reformer.ops.bucket_attention.attend import bucket_attention
from reformer.ops.bucket_attention.reference import bucket_attention_reference

__all__ = ["bucket_attention", "bucket_attention_reference"]
