"""What happens around a freeze: less memory before it, and nothing that copies share after it."""

from __future__ import annotations

import gc
import os
import random
import sys
from typing import Any


def collect() -> None:
    """Lets go of memory that the snapshot need not hold, and keeps the collector off what it does hold."""
    gc.collect()
    gc.freeze()  # a copy that never looks at these objects need not read them from the snapshot
    try:
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
    except (ImportError, OSError, AttributeError):  # another C library
        pass


def renew(entropy: bytes) -> None:
    """Seeds the generators of random numbers anew: each copy would go on with the numbers of the others.

    What the modules do by themselves: secrets, uuid4 and os.urandom ask the kernel. Generators that the user made are theirs
    to seed, in an after_thaw hook.
    """
    seed = os.urandom(32)
    mixed = int.from_bytes(bytes(a ^ b for a, b in zip(seed, entropy.ljust(32, b"\0"))), "big")
    random.seed(mixed)
    modules: dict[str, Any] = dict(sys.modules)
    ssl = modules.get("ssl")
    if ssl is not None:
        ssl.RAND_add(os.urandom(32) + entropy, 32.0)
    uuid = modules.get("uuid")
    if uuid is not None:
        uuid._last_timestamp = None
        uuid._node = None  # else copies share it, and with it the space of uuid1
    tempfile = modules.get("tempfile")
    if tempfile is not None:
        tempfile._name_sequence = None
    numpy = modules.get("numpy.random")
    if numpy is not None:
        numpy.seed(mixed & 0xFFFFFFFF)
    torch = modules.get("torch")
    if torch is not None and hasattr(torch, "manual_seed"):
        torch.manual_seed(mixed & 0x7FFFFFFFFFFFFFFF)
