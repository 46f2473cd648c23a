"""Peak bytes of live torch tensors on a CPU, by torch's own count."""

import gc
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def most_held(step: Callable[[], None]) -> int:
    """Peak bytes of tensors during a step, those alive before it included."""
    step()  # allocates what stays, such as the optimizer's moments
    return held() + most_added(step)


def most_added(action: Callable[[], None]) -> int:
    """Peak bytes of tensors that an action adds to those alive before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    with tempfile.TemporaryDirectory() as scratch:
        trace = Path(scratch) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = [event["args"] for event in events if event["name"] == "[memory]"]
    before = changes[0]["Total Allocated"] - changes[0]["Bytes"]
    return max(change["Total Allocated"] for change in changes) - before


def held() -> int:
    """Bytes of all live tensors; memory that several share is counted once."""
    stores = (x.untyped_storage() for x in gc.get_objects() if isinstance(x, torch.Tensor))
    return sum({store.data_ptr(): store.nbytes() for store in stores}.values())
