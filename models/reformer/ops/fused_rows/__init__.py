"""Between a fused layer's products, in Triton alone. norm_rope_relu, key_conv.py and head_gate.py define it."""
