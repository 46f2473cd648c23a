"""`fpo doctor`: what is installed, what it can use, and whether it computes what it should."""

from typing import Any

import typer

from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import DoctorConfig
from fpo_core.errors import SelfTestError


def doctor(config: DoctorConfig, ui: Ui) -> dict[str, Any]:
    """Say which backends, devices and versions are here, and how to get what is missing.

    With --self-test, each installed backend computes golden values, a gradient and three training
    steps on its device; what is printed can be pasted into a bug report.
    """
    from fpo.installation import diagnose, lines

    found = {"command": "doctor"} | diagnose(config)
    for line in lines(found):
        ui.say(line)
    return found | {"self_test": _self_test(config, found, ui)} if config.self_test else found


def _self_test(config: DoctorConfig, found: dict[str, Any], ui: Ui) -> dict[str, Any]:
    from fpo.device_selftest import report_lines, self_test

    installed = [name for name, backend in found["backends"].items() if backend["installed"]]
    reports: dict[str, Any] = {}
    for name in installed:
        ui.note(f"self-test of {name}")
        reports[name] = self_test(name, config.device)
        for line in report_lines(name, reports[name]):
            ui.say(line)
    failed = [name for name, report in reports.items() if not report["passed"]]
    if failed:
        raise SelfTestError(
            f"the self-test of {' and '.join(failed)} failed: do not trust this installation; "
            "report the lines above",
            found | {"self_test": reports},
        )
    return reports


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "doctor", DoctorConfig)(doctor)
