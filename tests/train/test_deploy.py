import pathlib
import shutil
import subprocess

import pytest
import yaml

from train import recipes, settings

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"


def sbatch() -> str:
    return (DEPLOY / "train.sbatch").read_text(encoding="utf-8")


def jobset() -> dict:
    return yaml.safe_load((DEPLOY / "jobset.yaml").read_text(encoding="utf-8"))


def test_the_script_for_slurm_is_one_that_bash_reads():
    subprocess.run(["bash", "-n", DEPLOY / "train.sbatch"], check=True)


def test_the_scripts_start_a_recipe_with_settings_that_exist():
    job = jobset()["spec"]["replicatedJobs"][0]["template"]["spec"]
    container = job["template"]["spec"]["containers"][0]
    assert container["command"][:3] == ["python", "-m", "train"]
    given = settings.pairs(container["args"])
    hosts = {name: given.pop(name) for name in ("coordinator", "processes", "process")}
    del given["out"]
    settings.override(recipes.RECIPES[container["command"][3]](), given)
    assert int(hosts["processes"]) == job["parallelism"] == job["completions"]
    name, train = jobset()["metadata"]["name"], jobset()["spec"]["replicatedJobs"][0]["name"]
    assert hosts["coordinator"].split(":") == [f"{name}-{train}-0-0.{name}", str(container["ports"][0]["containerPort"])]

    words = next(line for line in sbatch().splitlines() if line.strip().startswith("set --")).split()[2:]
    given = settings.pairs([word.replace('"', "") for word in words[1:]])
    del given["out"]
    settings.override(recipes.RECIPES[words[0]](), given)


@pytest.mark.parametrize(("code", "starts", "again"), [(143, 0, True), (143, 100, False), (0, 0, False), (1, 0, False)])
def test_a_run_that_was_stopped_goes_back_into_the_queue_and_one_that_failed_does_not(tmp_path, code, starts, again):
    for name, body in (("srun", f'echo "$@" > {tmp_path}/srun.txt; exit {code}'), ("scontrol", f'echo "$@" > {tmp_path}/again.txt')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "activate").touch()
    path = f"{tmp_path}:{pathlib.Path(shutil.which('bash')).parent}:/bin:/usr/bin"
    given = {"PATH": path, "VENV": str(tmp_path), "SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": str(starts)}
    done = subprocess.run(["bash", DEPLOY / "train.sbatch", "poetry", "tiny=true"], env=given, cwd=tmp_path)
    assert done.returncode == code
    assert (tmp_path / "srun.txt").read_text().endswith("python -m train poetry tiny=true\n")
    assert (tmp_path / "again.txt").exists() == again
