"""One more token of every row on a GPU in a handful of kernels a layer, over the caches of reformer/decode in place."""
