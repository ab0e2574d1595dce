"""The scripts that make the environment, on a copy with fake interpreters: nothing is downloaded."""

import concurrent.futures
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Stands for Python: `-m venv` makes an environment out of itself, pip writes to the log, and code is run by the real
# one, which says that it is this.
FAKE = f"""#!/bin/sh
case "$*" in
    "-c "*)
        exec "{sys.executable}" -c "import sys; sys._base_executable = '$0'
$2" ;;
    "-m venv"*)
        for last; do :; done
        echo venv >>"$FAKE_LOG"
        rm -rf "$last"/*
        mkdir -p "$last/bin"
        cp "$0" "$last/bin/python"
        printf '#!/bin/sh\\necho "ran $*"\\n' >"$last/bin/rlgen"
        chmod +x "$last/bin/rlgen" ;;
    "-m pip"*)
        sleep 0.1
        echo "pip $*" >>"$FAKE_LOG"
        exit "${{FAKE_PIP_STATUS:-0}}" ;;
esac
"""

TOOLS = ("sh", "cat", "chmod", "cksum", "cp", "dirname", "env", "mkdir", "mv", "readlink", "rm", "sed", "sleep")

# Runs the code that it is given by the real Python, after a line that changes what that one is.
CHANGED = f"""#!/bin/sh
exec "{sys.executable}" -c "LINE
$2"
"""


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "a project"
    shutil.copytree(ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, root / name)
    return root


@pytest.fixture
def tools(tmp_path):
    """A folder for PATH with what the scripts need beside Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in [
        "sh",
        "cat",
        "chmod",
        "cksum",
        "cp",
        "dirname",
        "env",
        "mkdir",
        "mv",
        "readlink",
        "rm",
        "sed",
        "sleep",
    ]:
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


def program(path, text):
    path.write_text(text)
    path.chmod(0o755)


def call(project, tools, *arguments, script="scripts/rlgen", cwd=None, **environment):
    log = {"FAKE_LOG": str(project.parent / "log")}
    return subprocess.run(
        [str(project / script), *arguments],
        cwd=cwd or project,
        env={"PATH": str(tools), **log, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def log(project):
    path = project.parent / "log"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


BUILT = ["venv", "pip", "pip"]


def test_builds_once_and_hands_the_arguments_over(project, tools):
    program(tools / "python3", FAKE)
    first = call(project, tools, "sweep", "a b")
    assert (first.returncode, first.stdout) == (0, "ran sweep a b\n"), first.stderr
    assert len(first.stderr.splitlines()) == 1
    assert str(project / ".venv") in first.stderr
    second = call(project, tools, "list")
    assert (second.returncode, second.stdout, second.stderr) == (0, "ran list\n", "")
    assert log(project) == BUILT


def test_installs_from_the_lock_alone_and_from_wheels(project, tools):
    program(tools / "python3", FAKE)
    call(project, tools)
    lock, own = (project.parent / "log").read_text().splitlines()[1:]
    assert f"--no-deps --only-binary :all: --no-binary pymdptoolbox -r {project}/requirements.lock" in lock
    assert own.endswith(f"--no-deps -e {project}")


def test_works_from_anywhere_and_through_links(project, tools, tmp_path):
    program(tools / "python3", FAKE)
    (tmp_path / "one").symlink_to(project / "scripts" / "rlgen")
    (tmp_path / "two").symlink_to("one")
    result = call(tmp_path, tools, "list", script="two", cwd="/")
    assert (result.returncode, result.stdout) == (0, "ran list\n"), result.stderr
    assert (project / ".venv").is_dir()


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_changed_requirements_are_installed_over_the_old(project, tools, name):
    program(tools / "python3", FAKE)
    call(project, tools)
    with (project / name).open("a") as file:
        file.write("# changed\n")
    result = call(project, tools)
    assert "changed" in result.stderr
    assert log(project) == [*BUILT, "pip", "pip"]


def test_half_made_environment_is_built_anew(project, tools):
    program(tools / "python3", FAKE)
    failed = call(project, tools, FAKE_PIP_STATUS="1")
    assert failed.returncode == 1
    assert "could not install requirements.lock" in failed.stderr
    (project / ".venv" / "leftover").touch()
    assert call(project, tools).returncode == 0
    assert log(project) == ["venv", "pip", *BUILT]
    assert not (project / ".venv" / "leftover").exists()


def test_failed_renewal_is_not_taken_for_done(project, tools):
    program(tools / "python3", FAKE)
    call(project, tools)
    (project / "requirements.lock").write_text("changed\n")
    assert call(project, tools, FAKE_PIP_STATUS="1").returncode == 1
    assert call(project, tools).returncode == 0
    assert log(project) == [*BUILT, "pip", *BUILT]


def test_moved_project_is_built_anew(project, tools):
    program(tools / "python3", FAKE)
    call(project, tools)
    moved = project.rename(project.parent / "moved")
    assert call(moved, tools).returncode == 0
    assert log(moved) == BUILT * 2


def test_a_link_to_another_environment_is_replaced_and_that_left_alone(project, tools, tmp_path):
    program(tools / "python3", FAKE)
    other = tmp_path / "other"
    (other / "bin").mkdir(parents=True)
    (other / "precious").touch()
    (project / ".venv").symlink_to(other)
    assert call(project, tools).returncode == 0
    assert sorted(path.name for path in other.rglob("*")) == ["bin", "precious"]
    assert not (project / ".venv").is_symlink() and (project / ".venv" / "rlgen-stamp").exists()


def test_calls_at_once_build_once(project, tools):
    program(tools / "python3", FAKE)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = [pool.submit(call, project, tools, str(i)) for i in range(4)]
    assert sorted(result.result().stdout for result in results) == [f"ran {i}\n" for i in range(4)]
    assert log(project) == BUILT


def test_refuses_an_old_python(project, tools):
    program(tools / "python3", '#!/bin/sh\ncase "$2" in *version_info\\[*) echo 3.10.2 ;; *) exit 3 ;; esac\n')
    result = call(project, tools)
    assert result.returncode == 1
    assert "Python 3.11 or newer is needed" in result.stderr
    assert "python3 is 3.10.2" in result.stderr
    assert not (project / ".venv").exists()


def test_the_check_of_the_version_is_true_to_python(project, tools):
    """The probe itself, with the real Python made to look old."""
    program(
        tools / "python3",
        CHANGED.replace("LINE", "import sys; sys.version_info = (3, 10, 9, 0, 0)"),
    )
    result = call(project, tools)
    assert result.returncode == 1
    assert "python3 is 3.10.9" in result.stderr


def test_takes_a_newer_python_beside_an_old_one(project, tools):
    program(tools / "python3", "#!/bin/sh\nexit 3\n")
    program(tools / "python3.12", FAKE)
    assert call(project, tools, "list").stdout == "ran list\n"


def test_takes_the_python_that_is_named(project, tools, tmp_path):
    program(tools / "python3", "#!/bin/sh\nexit 3\n")
    program(tmp_path / "my python", FAKE)
    assert call(project, tools, "list", RLGEN_PYTHON=str(tmp_path / "my python")).stdout == "ran list\n"


def test_says_when_there_is_no_python(project, tools):
    result = call(project, tools, RLGEN_PYTHON="/nowhere/python")
    assert result.returncode == 1
    assert result.stderr.startswith("rlgen: Python 3.11 or newer is needed and was not found.")


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_says_which_package_brings_environments(project, tools, missing):
    program(
        tools / "python3",
        CHANGED.replace("LINE", f"import sys; sys.modules['{missing}'] = None"),
    )
    result = call(project, tools)
    assert result.returncode == 1
    assert "apt install python3-venv" in result.stderr


def test_test_runs_every_check_and_says_which_failed(project, tools):
    program(tools / "python3", FAKE)
    call(project, tools)
    for name, status in (("ruff", 0), ("basedpyright", 1), ("python", 0)):
        program(project / ".venv" / "bin" / name, f'#!/bin/sh\necho "{name} $*"\nexit {status}\n')
    result = call(project, tools, "-k", "one law", script="scripts/test", cwd="/")
    assert result.returncode == 1
    ran = result.stdout.splitlines()
    assert [line.split()[0] for line in ran] == ["ruff", "ruff", "basedpyright", "python"]
    assert ran[-1].endswith("-k one law")
    assert result.stderr.strip() == "rlgen: failed: types"


def test_continuous_integration_passes_the_exit_code_on(tmp_path):
    (tmp_path / ".ci").mkdir()
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    program(tmp_path / "scripts" / "test", "#!/bin/sh\npwd\nexit 7\n")
    result = subprocess.run([str(tmp_path / ".ci" / "run")], cwd="/", capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (7, f"{tmp_path}\n")


@pytest.mark.parametrize("name", ["rlgen", "test", "soak", "new_algorithm", "../.ci/run"])
def test_scripts_are_executable(name):
    assert os.access(ROOT / "scripts" / name, os.X_OK)
