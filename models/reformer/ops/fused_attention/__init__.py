"""Attention of a fused layer, in Triton alone. bucket_attention defines what is computed (README.md there)."""
