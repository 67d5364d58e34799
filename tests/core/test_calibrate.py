"""`python -m core calibrate`: a real child measures this machine and says so in one line."""

import json
import os
import subprocess
import sys

from core.calibrate import Calibration


def test_the_machine_is_measured_and_told_as_one_event() -> None:
    command = [sys.executable, "-I", "-m", "core", "calibrate", "--threads", "1", "--parent", str(os.getpid())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, env={"OMP_NUM_THREADS": "1"})
    [line] = done.stdout.splitlines()
    event = json.loads(line)
    assert event["event"] == "result"
    found = Calibration.model_validate(event["values"])
    assert (found.device, found.threads, found.conv_bf16) == ("cpu", 1, None)
    assert found.hardware.endswith("1 thread")
    for rates in (found.conv, found.matmul, found.elements):
        assert [each.size for each in rates] == sorted(each.size for each in rates)
        # Nothing does fewer than a million operations a second, and no processor core 10^14.
        assert all(1e6 < each.rate < 1e14 for each in rates)
    assert 0 < found.operation < 0.1
    assert found.start > 0.1
    assert 50 << 20 < found.held < found.memory
