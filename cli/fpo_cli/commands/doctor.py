"""`fpo doctor`: what is installed, what it can use, and whether it computes what it should."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import DoctorConfig
from fpo_core.errors import SelfTestError


@command("doctor")
def doctor(config: DoctorConfig, ui: Ui) -> "fpo.Installation":
    """Say which backends, devices and versions are here, and how to get what is missing.

    With --self-test, each installed backend computes golden values, a gradient and three training
    steps on its device; what is printed can be pasted into a bug report.
    """
    result = ui.run(fpo.doctor, config)
    for line in result.lines():
        ui.say(line)
    failed = [name for name, test in result.self_tests.items() if not test.passed]
    if failed:
        raise SelfTestError(
            f"the self-test of {' and '.join(failed)} failed: do not trust this installation; "
            "report the lines above",
            result.to_mapping(),
        )
    return result
