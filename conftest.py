"""What pytest runs here runs quickly: notebooks in quick mode, without a network, and on one thread a process."""

import os
import sys

import matplotlib

# Before PyTorch is imported, and for the processes that this one starts, such as the notebooks' kernels
os.environ.update(QUICK="1", MNIST_OFFLINE="1", OMP_NUM_THREADS="1")
matplotlib.use("Agg")
sys.modules.setdefault("rfc3987_syntax", None)  # nbformat's schemas do without, and it takes seconds to import
