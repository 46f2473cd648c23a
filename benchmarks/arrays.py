"""What arrays take on a CPU, by torch's own count."""

import gc
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def most_held(step: Callable[[], None]) -> int:
    """Most bytes of arrays alive at once in a step, those included that are there before it."""
    step()  # makes what stays, such as the optimiser's moments
    return held() + most_added(step)


def most_added(action: Callable[[], None]) -> int:
    """Most bytes of arrays that an action holds at once, above what was there before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        action()
    with tempfile.TemporaryDirectory() as scratch:
        trace = Path(scratch) / "trace.json"
        found.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = [event["args"] for event in events if event["name"] == "[memory]"]
    before = changes[0]["Total Allocated"] - changes[0]["Bytes"]
    return max(change["Total Allocated"] for change in changes) - before


def held() -> int:
    """Bytes of all arrays alive, memory that several share counted once."""
    found = [each for each in gc.get_objects() if isinstance(each, torch.Tensor)]
    stores = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in found}
    return sum(stores.values())
