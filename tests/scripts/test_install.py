"""Scripts for other programs: where they are put, and what is never replaced. QGIS runs them in a long test."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tilepipe.cli.main import main
from tilepipe.cli.segment import segment
from tilepipe.errors import InputError, UsageError
from tilepipe.scripts.install import (
    INSTALLED,
    QGIS_SCRIPT,
    QUPATH_SCRIPT,
    command,
    install_in_qgis,
    install_in_qupath,
    script,
)


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QGIS_CUSTOM_CONFIG_PATH", str(tmp_path))
    (tmp_path / "profiles" / "default").mkdir(parents=True)
    return tmp_path / "profiles"


def test_the_script_is_put_where_qgis_looks(profiles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["qgis", "install"]) == 0
    path = profiles / "default" / "processing" / "scripts" / INSTALLED
    assert capsys.readouterr().out == f"{path}\n"
    found = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
    commands = [ast.literal_eval(node.value) for node in found if ast.unparse(node.targets[0]) == "COMMAND"]
    assert commands == [[sys.executable, "-P", "-m", "tilepipe"]]
    said = subprocess.run([*commands[0], "--version"], capture_output=True, text=True, check=True, cwd=profiles)
    assert said.stdout.startswith("tilepipe ")
    path.write_text(path.read_text() + "# older\n")
    assert install_in_qgis() == [path], "an earlier copy is replaced"
    assert path.read_text() == script(QGIS_SCRIPT)


def test_every_version_of_qgis_that_has_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QGIS_CUSTOM_CONFIG_PATH", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for version, name in (("QGIS3", "default"), ("QGIS4", "default"), ("QGIS4", "work")):
        (tmp_path / "QGIS" / version / "profiles" / name).mkdir(parents=True)
    assert [path.relative_to(tmp_path).parts[1] for path in install_in_qgis()] == ["QGIS3", "QGIS4"]
    assert [path.relative_to(tmp_path).parts[3] for path in install_in_qgis("work")] == ["work"]
    assert install_in_qgis(tmp_path)[0].parent == tmp_path / "processing" / "scripts"


def test_a_profile_that_is_not_there_is_said(profiles: Path) -> None:
    with pytest.raises(InputError, match=r"no profile 'work' in .*profiles \(there are: default\); start QGIS once"):
        install_in_qgis("work")


def test_another_script_of_that_name_is_left_alone(profiles: Path) -> None:
    path = profiles / "default" / "processing" / "scripts" / INSTALLED
    path.parent.mkdir(parents=True)
    path.write_text("print('mine')")
    with pytest.raises(UsageError, match="is another script"):
        install_in_qgis()
    assert path.read_text() == "print('mine')"


def test_the_command_has_quotes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", 'C:\\Program Files\\it\'s "here"\\python.exe')
    (line,) = [line for line in script(QGIS_SCRIPT).splitlines() if line.startswith("COMMAND = ")]
    assert ast.literal_eval(line.removeprefix("COMMAND = ")) == command() == json.loads(line.removeprefix("COMMAND = "))


def test_the_script_is_python_of_the_oldest_qgis() -> None:
    ast.parse(script(QGIS_SCRIPT), feature_version=(3, 9))


def test_the_script_for_qupath(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/opt/it costs $5/python")
    with pytest.raises(InputError, match=r"no folder like v0\.6"):
        install_in_qupath()
    (tmp_path / "QuPath" / "v0.6").mkdir(parents=True)
    assert main(["qupath", "install"]) == 0
    path = tmp_path / "QuPath" / "v0.6" / "scripts" / "tilepipe_segment.groovy"
    assert capsys.readouterr().out == f"{path}\n"
    assert 'def COMMAND = ["/opt/it costs \\$5/python", "-P", "-m", "tilepipe"]\n' in path.read_text()
    assert install_in_qupath() == [path], "an earlier copy is replaced"
    path.write_text("println 'mine'")
    with pytest.raises(UsageError, match="is another script"):
        install_in_qupath(path.parent)


def test_the_options_of_the_script_for_qupath_exist(tmp_path: Path) -> None:
    text = script(QUPATH_SCRIPT)
    written = re.findall(r'"(--[a-z-]+)"', text)
    known = {name for parameter in segment.params for name in parameter.opts}
    assert {"--of", "--split"} <= set(written) <= known
