"""Every file in clusters/ is one that Ray, and where it applies EC2, would accept, and keeps to the house rules."""

from __future__ import annotations

import ipaddress
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config

from singer_ray.nodes.limits import ClusterLimits
from tests.clusters.cluster_files import (
    AWS_FILES,
    COMMAND_LISTS,
    FILES,
    ROOT,
    command_scalars,
    commands,
    is_spot,
    load,
    load_with_variants,
    node_types,
    provider_of,
    workers,
)
from tests.nodes.test_limits import limits

every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
every_aws_file = pytest.mark.parametrize("file", AWS_FILES, ids=lambda file: file.stem)


@pytest.fixture(scope="module")
def run_instances() -> Any:
    """The shape of EC2's RunInstances call, which creates every node."""
    return botocore.session.Session().get_service_model("ec2").operation_model("RunInstances").input_shape


def assert_ec2_understands(config: dict[str, Any], run_instances: Any) -> None:
    for name, kind in node_types(config).items():
        # SubnetIds is Ray's own: it tries one after the other as SubnetId.
        call = {key: value for key, value in kind["node_config"].items() if key != "SubnetIds"}
        report = ParamValidator().validate({**call, "MinCount": 1, "MaxCount": 1}, run_instances)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"


def start_options(file: Path, name: str) -> dict[str, str]:
    """The options of the `ray start` in a list of commands."""
    starts = [command for command in load(file)[name] if "ray start" in command]
    assert len(starts) == 1
    words = shlex.split(starts[0].partition("ray start")[2])
    return dict(word.lstrip("-").partition("=")[::2] for word in words if word.startswith("--"))


def test_both_kinds_of_cluster_are_offered() -> None:
    assert {provider_of(file) for file in FILES} >= {"aws", "local"}


@every_file
def test_ray_accepts_the_file(file: Path) -> None:
    validate_config(prepare_config(load(file)))


@every_file
def test_ray_accepts_the_file_with_its_variants(file: Path) -> None:
    config = load_with_variants(file)
    assert (config != load(file)) == ("#| " in file.read_text(encoding="utf-8"))
    validate_config(prepare_config(config))


@every_aws_file
def test_ec2_understands_every_node(file: Path, run_instances: Any) -> None:
    assert_ec2_understands(load(file), run_instances)
    assert_ec2_understands(load_with_variants(file), run_instances)


@every_file
def test_mounted_files_are_there_or_made_as_the_header_says(file: Path) -> None:
    header = file.read_text(encoding="utf-8").partition("\ncluster_name:")[0]
    mounts = load(file)["file_mounts"]
    assert {"~/singer_ray", "~/.ray/auth_token"} <= mounts.keys()
    for source in mounts.values():
        if source == "~/.ray/auth_token":
            assert "ray get-auth-token --generate" in header
        else:
            assert (ROOT / source).exists(), source


@every_file
def test_the_repository_is_mounted_without_what_git_ignores(file: Path) -> None:
    config = load(file)
    assert config["file_mounts"]["~/singer_ray"] == "."
    assert ".gitignore" in config["rsync_filter"]
    assert (ROOT / ".gitignore").is_file()


@every_file
def test_the_repository_has_what_setup_reads(file: Path) -> None:
    read = {path for command in commands(load(file)) for path in re.findall(r"~/singer_ray/([\w./-]+)", command)}
    assert read, "set-up installs nothing from the repository"
    for path in {*read, "pyproject.toml"}:
        assert (ROOT / path).is_file(), f"{file.name} installs from {path}, which the repository does not have"


@every_file
def test_packages_are_installed_by_hash_and_compiled(file: Path) -> None:
    locked, own = (command for command in load(file)["setup_commands"] if command.startswith("uv pip install"))
    assert {"--require-hashes", "--compile-bytecode"} <= set(shlex.split(locked))
    # What builds the package is in the lock too, so nothing comes unchecked.
    assert {"--no-deps", "--no-build-isolation"} <= set(shlex.split(own))


@every_file
def test_no_command_can_lose_its_end_to_a_comment(file: Path) -> None:
    scalars = list(command_scalars(file.read_text(encoding="utf-8")))
    assert len(scalars) == len(list(commands(load(file))))
    for scalar in scalars:
        assert scalar.style is not None, f"line {scalar.start_mark.line + 1}: quote {scalar.value!r}"
        words = shlex.split(scalar.value)
        assert words == shlex.split(scalar.value, comments=True), f"the shell drops the end of {scalar.value!r}"


@every_file
def test_every_command_is_bash(file: Path) -> None:
    for command in {*commands(load(file)), *commands(load_with_variants(file))}:
        checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, f"{command!r}: {checked.stderr}"


@every_file
def test_no_list_of_commands_is_left_to_rays_defaults(file: Path) -> None:
    config = load(file)
    for name in COMMAND_LISTS[1:]:
        assert isinstance(config.get(name), list), name


@every_file
def test_the_dashboard_is_reachable_from_the_head_alone(file: Path) -> None:
    host = start_options(file, "head_start_ray_commands")["dashboard-host"]
    assert ipaddress.ip_address(host).is_loopback


@every_file
def test_the_head_reads_the_autoscaling_config_that_ray_up_leaves_there(file: Path) -> None:
    assert start_options(file, "head_start_ray_commands")["autoscaling-config"] == "~/ray_bootstrap_config.yaml"


@every_file
def test_no_package_index_is_named(file: Path) -> None:
    text = file.read_text(encoding="utf-8").lower()
    assert not re.search(r"https?://|index-url|pypi|pythonhosted", text)


@every_file
def test_the_header_says_how_to_use_the_file_and_how_far_it_was_tried(file: Path) -> None:
    header = file.read_text(encoding="utf-8").partition("\ncluster_name:")[0]
    for command in ("ray up", "ray exec", "ray submit", "ray dashboard", "ray down"):
        assert f"{command} clusters/{file.name}" in header
    assert "State of this file:" in header


@every_file
def test_every_made_up_value_is_marked_for_editing(file: Path) -> None:
    made_up = re.compile(r"0123456789abcdef0|192\.0\.2\.|198\.51\.100\.|203\.0\.113\.")
    lines = file.read_text(encoding="utf-8").splitlines()
    found = [line for line in lines if made_up.search(line)]
    assert found
    assert [line for line in found if "# EDIT" not in line] == []


@pytest.mark.parametrize("file", [f for f in FILES if provider_of(f) == "local"], ids=lambda file: file.stem)
def test_machines_of_ones_own_are_started_by_the_first_autoscaler(file: Path) -> None:
    start = next(c for c in load(file)["head_start_ray_commands"] if "ray start" in c)
    assert "RAY_enable_autoscaler_v2=0 " in start.partition("ray start")[0]


@every_aws_file
def test_the_bill_is_bounded(file: Path) -> None:
    config = load(file)
    assert 0 < config["max_workers"] <= 16
    assert 0 < config["idle_timeout_minutes"] <= 30
    assert config["provider"]["cache_stopped_nodes"] is False
    for name, kind in workers(config).items():
        assert kind["min_workers"] == 0, name
        assert kind["max_workers"] <= config["max_workers"], name


@every_aws_file
def test_every_node_protects_its_keys_and_its_disk(file: Path) -> None:
    for name, kind in node_types(load_with_variants(file)).items():
        node = kind["node_config"]
        assert node["MetadataOptions"]["HttpTokens"] == "required", name
        assert node["MetadataOptions"]["HttpPutResponseHopLimit"] == 1, name
        assert node["InstanceInitiatedShutdownBehavior"] == "terminate", name
        assert node["BlockDeviceMappings"], name
        for disk in node["BlockDeviceMappings"]:
            wanted = {"VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
            assert wanted.items() <= disk["Ebs"].items(), name


@every_aws_file
def test_every_node_has_security_groups_of_ones_own(file: Path) -> None:
    for name, kind in node_types(load_with_variants(file)).items():
        node = kind["node_config"]
        interfaces = node.get("NetworkInterfaces", [])
        assert all(interface["Groups"] and interface["SubnetId"] for interface in interfaces), name
        # Ray refuses both at once, and makes a group that is open to the world where it finds neither.
        assert bool(interfaces) != bool(node.get("SecurityGroupIds")), name


@every_aws_file
def test_the_head_is_on_demand_and_takes_no_work(file: Path) -> None:
    config = load(file)
    head = node_types(config)[config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert not is_spot(head["node_config"])


@every_aws_file
def test_nodes_say_whether_they_are_spot(file: Path) -> None:
    for name, kind in node_types(load_with_variants(file)).items():
        market = "spot" if is_spot(kind["node_config"]) else "on-demand"
        assert kind["labels"]["ray.io/market-type"] == market, name


def test_workers_come_as_spot_and_on_demand() -> None:
    offered = workers(load(ROOT / "clusters" / "aws.yaml"))
    assert {is_spot(kind["node_config"]) for kind in offered.values()} == {True, False}


@every_aws_file
def test_every_network_card_of_an_efa_node_is_used_once(file: Path) -> None:
    for name, kind in node_types(load_with_variants(file)).items():
        cards = [interface["NetworkCardIndex"] for interface in kind["node_config"].get("NetworkInterfaces", [])]
        assert cards == list(range(len(cards))), name
        if cards:
            assert "efa" in name, "worker_start_ray_commands tells such nodes by their type's name"


@pytest.mark.parametrize("file", [f for f in FILES if provider_of(f) == "local"], ids=lambda file: file.stem)
def test_the_recorded_file_of_the_head_is_still_what_ray_makes_of_it(file: Path) -> None:
    """Of AWS, whose types get their resources from EC2, see test_aws_launch."""
    assert ClusterLimits.of(prepare_config(load(file))) == limits(file.stem)
