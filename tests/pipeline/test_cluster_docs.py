"""docs/cluster.md: what it shows is well-formed, has the fields that its readers know, and calls heatlas as it can be called."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from heatlas.pipeline.settings.run import leaves

from ..support.checkout import ROOT

PAGE = (ROOT / "docs" / "cluster.md").read_text()
BLOCKS = re.findall(r"```(yaml|bash)\n(.*?)```", PAGE, re.DOTALL)
RAY_JOB = {
    "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint", "entrypointNumCpus",
    "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata", "rayClusterSpec", "runtimeEnvYAML",
    "shutdownAfterJobFinishes", "submissionMode", "submitterConfig", "submitterPodTemplate", "suspend", "ttlSecondsAfterFinished",
}  # fmt: skip
"""Fields of RayJobSpec in KubeRay's ray-operator/apis/ray/v1/rayjob_types.go."""
RAY_CLUSTER = {
    "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "headGroupSpec", "headServiceAnnotations", "rayVersion", "suspend",
    "workerGroupSpecs",
}  # fmt: skip
"""Fields of RayClusterSpec, there and in KubeRay's API reference."""
HEAD_GROUP = {"serviceType", "headService", "enableIngress", "rayStartParams", "template"}
WORKER_GROUP = {
    "groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template", "scaleStrategy",
}  # fmt: skip


def block(first: str) -> str:
    """The block whose first line begins so."""
    [results] = [text for _, text in BLOCKS if text.startswith(first)]
    return results


def test_there_is_one_of_each():
    assert [kind for kind, _ in BLOCKS] == ["yaml", "yaml", "bash"]


def test_ray_job_has_only_fields_that_kuberay_knows():
    job = yaml.safe_load(block("# rayjob.yaml"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert spec.keys() <= RAY_JOB
    assert cluster.keys() <= RAY_CLUSTER
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"].keys() <= HEAD_GROUP
    for group in cluster["workerGroupSpecs"]:
        assert group.keys() <= WORKER_GROUP
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_ray_job_runs_the_workers_beside_the_head():
    cluster = yaml.safe_load(block("# rayjob.yaml"))["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for value in [raystartparam for group in groups for raystartparam in group["rayStartParams"].values()]:
        assert isinstance(value, str), "rayStartParams are strings"
    containers = [group["template"]["spec"]["containers"] for group in groups]
    assert len({container[0]["image"] for container in containers}) == 1, "all pods need the same software"
    for [container] in containers:
        for name, limit in container["resources"]["limits"].items():
            assert container["resources"]["requests"][name] == limit
    assert containers[1][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert cluster["rayVersion"] == ray.__version__


def test_ray_up_file_passes_rays_own_schema():
    config = yaml.safe_load(block("# cluster.yaml"))
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0}
    started = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in line for line in started if "ray start" in line)


def test_the_schema_would_notice_a_mistake():
    config = yaml.safe_load(block("# cluster.yaml"))
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**config, "max_worker": 3}, schema)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_slurm_script_is_valid_shell():
    script = block("#!/bin/bash")
    checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stderr
    assert checked.stderr == ""
    assert script.splitlines()[1].startswith("#SBATCH "), "Slurm reads no #SBATCH after the first command"
    assert re.search(r"ray symmetric-run --address .* --min-nodes .* --", script)
    assert "--shared-fs" in script


def commands() -> list[list[str]]:
    """Every call of `heatlas explain` on the page, as arguments."""
    plain = re.sub(r"\\\n\s*", " ", PAGE)
    plain = re.sub(r"\n    --", " --", plain)
    result = re.findall(r"heatlas explain ([^`\n\"]*(?:\"\$[^`\n]*)?)", plain)
    return [shlex.split(line) for line in result if "--model" in line]


def test_every_command_uses_options_that_exist():
    options = {f"--{name.replace('_', '-')}" for name in leaves()}
    assert len(commands()) == 4
    for arguments in commands():
        given = {argument for argument in arguments if argument.startswith("--")}
        assert given <= options, given - options
        assert {"--model", "--data", "--out", "--address"} <= given
