"""loadtest.sh with everything it calls replaced by stand-ins that write down how they were called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "loadtest.sh"

DOCKER = r"""#!/bin/sh
# Runs what `docker compose exec … app COMMAND` would, with `python` played by a script that writes its output files.
[ "$1 $2" = "compose ps" ] && { [ -e running ] && echo 0123abc; exit 0; }
shift 2
while [ "$1" != app ]; do shift; done
shift
[ "$1" = python ] && { shift; exec ./python-of-the-app "$@"; }
exec "$@"
"""
PYTHON = r"""#!/bin/sh
[ "$1" = -c ] && exit 0
printf '%s\n' "$@" > called
while [ $# -gt 0 ]; do
  case $1 in --json|--html) echo "figures of $1" > "$2"; shift ;; esac
  shift
done
exit "$(cat status 2>/dev/null || echo 0)"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project folder with the script and nothing else."""
    folder = tmp_path / "the project"
    folder.mkdir()
    shutil.copy(SCRIPT, folder)
    return folder


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


def with_docker(project: Path) -> None:
    put(project / "bin" / "docker", DOCKER)
    put(project / "python-of-the-app", PYTHON)
    (project / "running").touch()


def call(project: Path, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    # Docker's own folder is left out of the path: only the stand-in may be found.
    tools = project / "bin"
    tools.mkdir(exist_ok=True)
    for tool in ("bash", "sh", "dirname", "mkdir", "mv", "rm", "cat", "test", "env"):
        found = shutil.which(tool)
        assert found, tool
        if not (tools / tool).exists():
            (tools / tool).symlink_to(found)
    return subprocess.run(
        [str(tools / "bash"), str(project / "loadtest.sh"), *args],
        cwd=cwd or project,
        env={"PATH": str(tools), "HOME": os.environ.get("HOME", "/")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def called(project: Path) -> list[str]:
    return (project / "called").read_text().splitlines()


def test_the_virtual_environment_is_used_where_there_is_one(project: Path, tmp_path: Path) -> None:
    put(project / ".venv" / "bin" / "python", PYTHON)
    with_docker(project)
    (project / "python-of-the-app").unlink()
    assert call(project, "--waves", "3", "--key-prefix", "a b", cwd=tmp_path).returncode == 0
    assert called(project) == ["-m", "app", "loadtest", "--waves", "3", "--key-prefix", "a b"]


@pytest.mark.parametrize("where", ["venv", "docker"])
@pytest.mark.parametrize("form", [["--json", "new folder/run.json"], ["--json=new folder/run.json"]])
def test_files_are_written_where_the_caller_stands(project: Path, tmp_path: Path, where: str, form: list[str]) -> None:
    if where == "venv":
        put(project / ".venv" / "bin" / "python", PYTHON)
        (tmp_path / "new folder").mkdir()
    else:
        with_docker(project)
    done = call(project, *form, "--html", str(tmp_path / "run.html"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "new folder" / "run.json").read_text() == "figures of --json\n"
    assert (tmp_path / "run.html").read_text() == "figures of --html\n"


def test_in_the_container_files_go_through_tmp_and_nothing_is_left_there(project: Path) -> None:
    with_docker(project)
    assert call(project, "--waves", "3", "--json", "run.json").returncode == 0
    *flags, inside = called(project)
    assert flags == ["-m", "app", "loadtest", "--waves", "3", "--json"]
    assert inside.startswith("/tmp/loadtest.")
    assert not Path(inside).exists()


def test_grpc_is_passed_on_with_its_target_and_without(project: Path) -> None:
    with_docker(project)
    assert call(project, "--grpc").returncode == 0
    assert called(project) == ["-m", "app", "loadtest", "--grpc"]
    assert call(project, "--grpc", "loom:9999", "--waves", "3").returncode == 0
    assert called(project) == ["-m", "app", "loadtest", "--grpc", "loom:9999", "--waves", "3"]


def test_without_flags_nothing_is_passed_on(project: Path) -> None:
    with_docker(project)
    assert call(project).returncode == 0
    assert called(project) == ["-m", "app", "loadtest"]


@pytest.mark.parametrize("where", ["venv", "docker"])
def test_the_exit_status_is_the_load_tests_own_and_its_figures_come_all_the_same(project: Path, where: str) -> None:
    if where == "venv":
        put(project / ".venv" / "bin" / "python", PYTHON)
    else:
        with_docker(project)
    (project / "status").write_text("1")
    assert call(project, "--json", "run.json").returncode == 1
    assert (project / "run.json").exists()


def test_a_virtual_environment_that_does_not_work_is_passed_over(project: Path) -> None:
    put(project / ".venv" / "bin" / "python", "#!/bin/sh\nexit 1\n")
    with_docker(project)
    assert call(project).returncode == 0


def test_with_neither_it_says_so_in_one_line(project: Path) -> None:
    done = call(project)
    assert done.returncode == 2
    assert done.stderr.startswith("loadtest: there is no .venv and no running app container")
    assert done.stderr.count("\n") == 1
    with_docker(project)
    (project / "running").unlink()
    assert call(project).returncode == 2


def test_help_is_given_with_neither_too(project: Path) -> None:
    done = call(project, "--waves", "3", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ./loadtest.sh")


def test_help_is_the_load_tests_own_where_it_can_be_asked(project: Path) -> None:
    with_docker(project)
    assert call(project, "--help").returncode == 0
    assert called(project) == ["-m", "app", "loadtest", "--help"]


def test_a_file_flag_without_its_file_is_refused(project: Path) -> None:
    done = call(project, "--json")
    assert (done.returncode, done.stderr) == (2, "loadtest: --json needs a file\n")
