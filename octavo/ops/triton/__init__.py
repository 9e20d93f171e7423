"""Our Triton kernels, one idea per file. They run natively on a GPU and, in tests, interpreted on the CPU."""
