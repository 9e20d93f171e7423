import os
import subprocess
import sys
from pathlib import Path

import pytest

import octavo
from octavo.base.errors import ConfigError, EngineError, ModelFileError, RequestError
from octavo.cli import main as main_module
from octavo.cli.command import COMMANDS, SUMMARIES, Command
from octavo.cli.main import main

HEAVY = ("torch", "transformers", "fastapi", "numpy", "rich", "httpx", "tokenizers", "uvicorn")


def _modules_after(code: str) -> set[str]:
    code = f"import sys\n{code}\nprint('MODULES', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.partition("MODULES")[2].split())


def test_help_imports_nothing_heavy():
    modules = _modules_after("from octavo.cli.main import main\nmain(['--help'])")
    assert "octavo.cli.main" in modules
    assert not modules.intersection(HEAVY)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_of_a_command_imports_no_torch(name):
    modules = _modules_after(
        f"from octavo.cli.main import main\nassert main({[*name.split(), '--help']}) == 0"
    )
    assert not modules.intersection({"torch", "transformers", "fastapi", "numpy"})


def test_a_server_leaves_numpy_to_its_core_until_somebody_needs_it():
    assert not _modules_after("import octavo.server.run").intersection({"torch", "transformers", "numpy"})


def test_a_server_launches_its_core_before_it_imports_the_rest():
    assert not _modules_after("import octavo.server.start, octavo.cli.startup").intersection(HEAVY)


def test_every_command_has_a_summary_and_is_listed(capsys):
    assert set(SUMMARIES) == set(COMMANDS)
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, summary in SUMMARIES.items():
        assert name in text
        assert summary in text


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help(name, capsys):
    assert main([*name.split(), "--help"]) == 0
    assert f"usage: octavo {name}" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"octavo {octavo.__version__}\n"


def test_without_a_command_the_overview_and_code_2(capsys):
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out
    assert main(["bench"]) == 2
    assert "bench serve" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sevre"], "Did you mean serve"),
        (["bench", "srve"], "Did you mean bench serve"),
        (["serve", "--prot", "1"], "Did you mean --port"),
        (["serve", "--port", "x"], "--port: must be a whole number"),
    ],
)
def test_wrong_command_lines_get_one_message_and_code_2(words, message, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("octavo: error: ")
    assert message in error
    assert error.count("\n") == 1


def _install(monkeypatch, run):
    command = Command(description="Fails.", add_arguments=lambda parser: None, run=run)
    monkeypatch.setattr(main_module.COMMANDS, "load", lambda name: command)


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError, 2), (ModelFileError, 1), (RequestError, 1), (EngineError, 1)]
)
def test_our_errors_become_exit_codes(error, code, monkeypatch, capsys):
    def run(parsed):
        raise error("It broke. Do this.")

    monkeypatch.delenv("OCTAVO_DEBUG", raising=False)
    _install(monkeypatch, run)
    assert main(["env"]) == code
    assert capsys.readouterr().err == "octavo: error: It broke. Do this.\n"
    with pytest.raises(error):
        main(["env", "--debug"])
    monkeypatch.setenv("OCTAVO_DEBUG", "1")
    with pytest.raises(error):
        main(["env"])


def test_interrupt_is_130(monkeypatch, capsys):
    def run(parsed):
        raise KeyboardInterrupt

    _install(monkeypatch, run)
    assert main(["env"]) == 130
    assert capsys.readouterr().err == ""


def test_bugs_are_not_hidden(monkeypatch):
    def run(parsed):
        raise ZeroDivisionError

    _install(monkeypatch, run)
    with pytest.raises(ZeroDivisionError):
        main(["env"])


ENV = "import sys\nfrom octavo.cli.main import main\nsys.exit(main(['env']))"


def _in_a_shell(redirection, code=ENV, **buffering):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | buffering
    command = f'"{sys.executable}" -c "{code}" {redirection}'
    return subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True)


@pytest.mark.parametrize("buffering", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_closed_pipe_ends_quietly(buffering):
    done = _in_a_shell("| true; exit ${PIPESTATUS[0]}", **buffering)
    assert done.stderr == ""
    assert done.returncode == 1


@pytest.mark.parametrize("buffering", [{}, {"PYTHONUNBUFFERED": "1"}])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_one_sentence(buffering):
    done = _in_a_shell("> /dev/full", **buffering)
    assert done.stderr == "octavo: error: The output could not be written: No space left on device.\n"
    assert done.returncode == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_obstacle(closed):
    code = (
        "import sys\nfrom octavo.cli import main, streams\nassert main.main(['env']) == 0\n"
        "streams.read_stdin(), sys.stdout.write('x'), sys.stderr.isatty()"
    )
    assert _in_a_shell(closed, code).returncode == 0


def test_output_that_nobody_reads_does_not_spoil_the_end_of_a_server(monkeypatch):
    """What print_ready could not print is not tried again when the server ends, hours later."""
    code = (
        "import sys, time\nfrom octavo.cli import startup\nfrom octavo.cli.main import main\n"
        "time.sleep(0.5)\n"
        "startup.time_line = lambda *a: 'Ready'\nstartup.memory_table = startup.what_to_try = lambda *a: []\n"
        "class Any:\n    def __getattr__(self, name): return self\n"
        "    def __getitem__(self, at): return self\n"
        "startup.print_ready(Any())\nsys.exit(main(['--version']))"
    )
    done = _in_a_shell("| true; exit ${PIPESTATUS[0]}", code)
    assert (done.stderr, done.returncode) == ("", 0)


def test_environment_report_has_no_secret(monkeypatch, capsys):
    monkeypatch.setenv("OCTAVO_API_KEY", "very-secret")
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    assert "torch" in text
    assert "very-secret" not in text
    assert main(["env", "--json"]) == 0
    text = capsys.readouterr().out
    assert '"api key set": true' in text
    assert "very-secret" not in text
