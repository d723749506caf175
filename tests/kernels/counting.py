"""Which matmuls and copies really reach the device."""

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode

MATMULS = {"mm", "bmm", "addmm", "baddbmm"}
COPIES = {"clone", "copy_", "_to_copy", "contiguous"}


class Calls(TorchDispatchMode):
    """Counts every operation under it by its base name."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def matmuls(self):
        return sum(self.names[name] for name in MATMULS)

    @property
    def copies(self):
        return sum(self.names[name] for name in COPIES)
