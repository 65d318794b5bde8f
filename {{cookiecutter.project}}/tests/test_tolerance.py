"""How many answers may differ on a device, from the facts of devices."""

from pathlib import Path

import pytest

from slm.ci import device_tolerance as tolerance
from slm.errors import UserError
from slm.files import read_json, write_json


def propose(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(folder)
    tolerance.write_tolerance(Path("facts"))


def test_more_answers_differ_than_were_seen_to_and_fewer_the_more_were_asked():
    assert tolerance.tolerance(100, 0) == 0.03  # the rule of three
    assert tolerance.tolerance(100, 2) > 0.02
    assert tolerance.tolerance(1000, 20) < tolerance.tolerance(100, 2)


def test_the_worst_device_sets_the_tolerance_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for system, flipped in {"Linux x86_64": 0, "Darwin arm64": 3}.items():
        facts = {"system": system, "asked": 100, "flipped": flipped, "request_ms_p50": 1.0}
        write_json(tmp_path / "facts" / f"device-{system.split()[0]}" / "device.json", facts)
    propose(monkeypatch, tmp_path)
    found = read_json(tmp_path / "devices.json")
    assert found["tolerance"] == tolerance.tolerance(100, 3) and len(found["devices"]) == 2
    assert "| Darwin arm64 | 100 | 3 | 0.08 |" in capsys.readouterr().out
    # What a person has merged is not overruled by a later run.
    write_json(tmp_path / "devices.json", found | {"tolerance": 0.01})
    propose(monkeypatch, tmp_path)
    assert read_json(tmp_path / "devices.json")["tolerance"] == 0.01


def test_no_device_that_answers_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="no device reported its facts"):
        propose(monkeypatch, tmp_path)
