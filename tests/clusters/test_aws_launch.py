"""What EC2 is asked for when Ray launches the AWS clusters, against a simulated account and without a network."""

from __future__ import annotations

import copy
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import moto
import moto.settings
import pytest
import yaml
from botocore.exceptions import ClientError
from ray.autoscaler._private import commands
from ray.autoscaler._private.aws import config as ray_aws
from ray.autoscaler._private.aws import utils as ray_aws_utils
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import (
    NODE_KIND_HEAD,
    NODE_KIND_WORKER,
    TAG_RAY_LAUNCH_CONFIG,
    TAG_RAY_NODE_KIND,
    TAG_RAY_USER_NODE_TYPE,
)
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import (
    LabelSelectorOperator,
    ResourceDemandScheduler,
    ResourceRequestByCount,
    SchedulingRequest,
)
from ray.autoscaler.v2.utils import ResourceRequestUtil

from singer_ray.nodes.limits import ClusterLimits
from tests.clusters.cluster_files import AWS_FILES, ROOT, is_spot, load, node_types, workers
from tests.nodes.test_limits import limits

pytestmark = pytest.mark.slow

ACCOUNT = "123456789012"
LABEL_IN = LabelSelectorOperator.Value("LABEL_OPERATOR_IN")


@dataclass(frozen=True)
class Cluster:
    """A launched cluster: its resolved configuration, and one instance of each node type as EC2 describes it."""

    config: dict[str, Any]
    provider: NodeProvider
    ec2: Any
    instances: dict[str, dict[str, Any]]


class Loopback(socket.socket):
    """A socket that reaches this machine only."""

    def connect(self, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"the test wants the network: {address}")
        super().connect(address)


@contextmanager
def simulated_account(home: Path) -> Iterator[None]:
    """An empty account, strict where the simulation can be, and a user who has no other."""
    with pytest.MonkeyPatch.context() as patch, moto.mock_aws():
        patch.setattr(socket, "socket", Loopback)
        patch.setenv("HOME", str(home))
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN", "AWS_REGION"):
            patch.delenv(name, raising=False)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for check in ("ENABLE_AMI_VALIDATION", "ENABLE_KEYPAIR_VALIDATION", "EC2_ENABLE_INSTANCE_TYPE_VALIDATION"):
            patch.setattr(moto.settings, check, True)
        forget_clients()
        yield
    forget_clients()


def forget_clients() -> None:
    for cached in (ray_aws_utils.resource_cache, ray_aws_utils.client_cache, ray_aws._get_subnets_or_die):
        cached.cache_clear()


def edited(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration after its user prepared the account and filled in the values marked EDIT."""
    region = config["provider"]["region"]
    ec2, iam = boto3.client("ec2", region), boto3.client("iam")
    image = ec2.register_image(Name="deep-learning", RootDeviceName="/dev/sda1")["ImageId"]
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="singer-ray", Description="singer-ray", VpcId=vpc)["GroupId"]
    for kind in node_types(config).values():
        node = kind["node_config"]
        node["ImageId"], node["SecurityGroupIds"] = image, [group]
        profile = node["IamInstanceProfile"]["Name"]
        if profile not in {known["InstanceProfileName"] for known in iam.list_instance_profiles()["InstanceProfiles"]}:
            iam.create_role(RoleName=profile, AssumeRolePolicyDocument=policy("trust"))
            iam.put_role_policy(RoleName=profile, PolicyName="singer-ray", PolicyDocument=policy(profile))
            iam.create_instance_profile(InstanceProfileName=profile)
            iam.add_role_to_instance_profile(InstanceProfileName=profile, RoleName=profile)
    return config


def policy(name: str) -> str:
    text = (ROOT / "clusters" / "iam" / f"{name}.json").read_text(encoding="utf-8")
    return text.replace("ACCOUNT", ACCOUNT).replace("BUCKET", "bucket")


def launch(config: dict[str, Any], provider: NodeProvider, node_type: str) -> str:
    """Starts one node of a type, as `ray up` starts the head and the autoscaler the workers; returns its identifier."""
    is_head = node_type == config["head_node_type"]
    tags = {
        TAG_RAY_NODE_KIND: NODE_KIND_HEAD if is_head else NODE_KIND_WORKER,
        TAG_RAY_USER_NODE_TYPE: node_type,
        TAG_RAY_LAUNCH_CONFIG: "hash",
    }
    node_config = {**(config["head_node"] if is_head else {}), **node_types(config)[node_type]["node_config"]}
    created = provider.create_node(node_config, tags, 1)
    assert created
    return str(next(iter(created)))


@pytest.fixture(scope="module", params=AWS_FILES, ids=lambda file: file.stem)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with simulated_account(tmp_path_factory.mktemp("home")):
        config = commands._bootstrap_config(edited(load(request.param)), no_config_cache=True)
        provider = _get_node_provider(config["provider"], config["cluster_name"], use_cache=False)
        ec2 = boto3.client("ec2", config["provider"]["region"])
        instances = {name: describe(ec2, launch(config, provider, name)) for name in node_types(config)}
        assert len(instances) > 1
        yield Cluster(config, provider, ec2, instances)


def describe(ec2: Any, instance: str) -> dict[str, Any]:
    (reservation,) = ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    (described,) = reservation["Instances"]
    return dict(described)


def test_spot_is_spot_and_the_rest_is_not(cluster: Cluster) -> None:
    for name, instance in cluster.instances.items():
        wanted = is_spot(node_types(cluster.config)[name]["node_config"])
        assert (instance.get("InstanceLifecycle") == "spot") == wanted, name


def test_disks_are_encrypted_gp3_of_the_size_that_was_asked_for(cluster: Cluster) -> None:
    for name, instance in cluster.instances.items():
        (mapping,) = instance["BlockDeviceMappings"]
        assert mapping["DeviceName"] == instance["RootDeviceName"], name
        (volume,) = cluster.ec2.describe_volumes(VolumeIds=[mapping["Ebs"]["VolumeId"]])["Volumes"]
        (asked,) = node_types(cluster.config)[name]["node_config"]["BlockDeviceMappings"]
        assert (volume["Encrypted"], volume["VolumeType"]) == (True, "gp3"), name
        assert volume["Size"] == asked["Ebs"]["VolumeSize"], name
        assert {"Key": "project", "Value": "singer-ray"} in volume["Tags"], name


def test_the_metadata_service_wants_a_token(cluster: Cluster) -> None:
    for name, instance in cluster.instances.items():
        assert instance["MetadataOptions"]["HttpTokens"] == "required", name
        assert instance["MetadataOptions"]["HttpPutResponseHopLimit"] == 1, name


def test_head_and_workers_have_roles_of_their_own(cluster: Cluster) -> None:
    profiles = {name: i["IamInstanceProfile"]["Arn"].rpartition("/")[2] for name, i in cluster.instances.items()}
    head = profiles.pop(cluster.config["head_node_type"])
    assert head == "singer-ray-head"
    assert set(profiles.values()) == {"singer-ray-worker"}


def test_ray_made_no_role_and_no_security_group_of_its_own(cluster: Cluster) -> None:
    roles = {role["RoleName"] for role in boto3.client("iam").list_roles()["Roles"]}
    assert roles == {"singer-ray-head", "singer-ray-worker"}
    groups = cluster.ec2.describe_security_groups()["SecurityGroups"]
    assert {group["GroupName"] for group in groups} == {"default", "singer-ray"}


def test_instances_can_be_told_apart_on_the_bill(cluster: Cluster) -> None:
    for name, instance in cluster.instances.items():
        tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
        assert tags["project"] == "singer-ray"
        assert tags["ray-cluster-name"] == cluster.config["cluster_name"]
        assert tags["ray-user-node-type"] == name


def test_gpus_of_workers_are_known_before_the_first_one_starts(cluster: Cluster) -> None:
    for name, kind in workers(cluster.config).items():
        assert kind["resources"]["GPU"] >= 1, name
        assert kind["resources"]["CPU"] >= 8, name
    assert node_types(cluster.config)[cluster.config["head_node_type"]]["resources"] == {"CPU": 0}


def test_every_listed_zone_is_tried(cluster: Cluster) -> None:
    zones = [zone.strip() for zone in cluster.config["provider"]["availability_zone"].split(",")]
    zone_of = {s["SubnetId"]: s["AvailabilityZone"] for s in cluster.ec2.describe_subnets()["Subnets"]}
    for name, kind in node_types(cluster.config).items():
        assert [zone_of[subnet] for subnet in kind["node_config"]["SubnetIds"]] == zones, name


def planned(config: dict[str, Any], tasks: int, market: str | None = None) -> dict[str, int]:
    """The workers that the autoscaler would start for so many tasks of one GPU, on any market or on one alone."""
    selectors = [[("ray.io/market-type", LABEL_IN, [market])]] if market else None
    demand = ResourceRequestUtil.make({"GPU": 1}, label_selectors=selectors)
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=AutoscalingConfig(config, skip_content_hash=True).get_node_type_configs(),
        max_num_nodes=config["max_workers"],  # the head, which would count too, is left out
        resource_requests=[ResourceRequestByCount(request=demand, count=tasks)],
    )
    return {
        launched.instance_type: launched.count for launched in ResourceDemandScheduler().schedule(request).to_launch
    }


def test_work_goes_to_spot_first_and_beyond_its_limit_to_on_demand(cluster: Cluster) -> None:
    offered = workers(cluster.config)
    spot = {name for name, kind in offered.items() if is_spot(kind["node_config"])}
    assert set(planned(cluster.config, tasks=1)) <= (spot or set(offered))
    most = planned(cluster.config, tasks=1000)
    assert set(most) == set(offered)
    assert sum(most.values()) == cluster.config["max_workers"]
    assert all(most[name] == offered[name]["max_workers"] for name in spot)


def test_work_that_must_not_be_interrupted_finds_on_demand_nodes_by_label(cluster: Cluster) -> None:
    on_demand = {name for name, kind in workers(cluster.config).items() if not is_spot(kind["node_config"])}
    found = set(planned(cluster.config, tasks=1, market="on-demand"))
    assert found <= on_demand
    assert bool(found) == bool(on_demand)


@contextmanager
def acting_as(role: str) -> Iterator[dict[str, str]]:
    """The keys that a node of this role has; what its policy does not allow is denied for as long as this lasts."""
    arn = f"arn:aws:iam::{ACCOUNT}:role/{role}"
    keys = boto3.client("sts").assume_role(RoleArn=arn, RoleSessionName="node")["Credentials"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0.0)
        yield {
            "aws_access_key_id": keys["AccessKeyId"],
            "aws_secret_access_key": keys["SecretAccessKey"],
            "aws_session_token": keys["SessionToken"],
        }


def test_the_heads_role_suffices_to_start_and_end_workers(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.autoscaler._private.aws.node_provider.TAG_BATCH_DELAY", 0)
    with acting_as("singer-ray-head") as keys:
        settings = {**cluster.config["provider"], "aws_credentials": keys}
        provider = _get_node_provider(settings, cluster.config["cluster_name"], use_cache=False)
        instance = launch(cluster.config, provider, next(iter(workers(cluster.config))))
        assert instance in provider.non_terminated_nodes({})
        provider.set_node_tags(instance, {"ray-node-status": "up-to-date"})
        provider.terminate_nodes([instance])
        assert instance not in provider.non_terminated_nodes({})


def test_the_heads_role_suffices_for_ray_exec_with_stop(cluster: Cluster) -> None:
    """With --stop the head itself resolves the configuration again, to end the workers and then itself."""
    region = cluster.config["provider"]["region"]
    with acting_as("singer-ray-head") as keys:
        again = ray_aws.bootstrap_aws(
            {**cluster.config, "provider": {**cluster.config["provider"], "aws_credentials": keys}}
        )
        boto3.client("ec2", region, **keys).describe_instance_types(InstanceTypes=["m7i.2xlarge"])
    assert node_types(again) == node_types(cluster.config)


def test_the_heads_role_suffices_for_little_else(cluster: Cluster) -> None:
    region = cluster.config["provider"]["region"]
    with acting_as("singer-ray-head") as keys:
        iam, ec2, s3 = (boto3.client(service, region, **keys) for service in ("iam", "ec2", "s3"))
        assert denied(lambda: iam.create_user(UserName="intruder"))
        assert denied(lambda: ec2.create_key_pair(KeyName="intruder"))
        assert denied(lambda: s3.list_objects_v2(Bucket="other"))


def test_a_workers_role_reads_and_writes_the_bucket_and_nothing_else(cluster: Cluster) -> None:
    for bucket in ("bucket", "other"):
        boto3.client("s3", "us-east-1").create_bucket(Bucket=bucket)
    with acting_as("singer-ray-worker") as keys:
        s3, ec2 = (boto3.client(service, "us-east-1", **keys) for service in ("s3", "ec2"))
        s3.put_object(Bucket="bucket", Key="prefix/state", Body=b"1")
        assert s3.get_object(Bucket="bucket", Key="prefix/state")["Body"].read() == b"1"
        assert s3.list_objects_v2(Bucket="bucket")["KeyCount"] == 1
        s3.delete_object(Bucket="bucket", Key="prefix/state")
        assert denied(lambda: s3.put_object(Bucket="other", Key="prefix/state", Body=b"1"))
        assert denied(ec2.describe_instances)


def denied(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except ClientError as error:
        return error.response["Error"]["Code"] in ("AccessDenied", "UnauthorizedOperation")
    return False


def test_the_head_may_give_the_workers_role_and_no_other(cluster: Cluster) -> None:
    """Without it EC2 refuses to start workers; the simulation does not look."""
    statements = json.loads(policy("singer-ray-head"))["Statement"]
    passed = [s["Resource"] for s in statements if s["Action"] == "iam:PassRole"]
    asked = {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in workers(cluster.config).values()}
    assert passed == [f"arn:aws:iam::{ACCOUNT}:role/{name}" for name in asked]


def test_ended_nodes_leave_neither_stopped_instances_nor_disks(cluster: Cluster) -> None:
    extra = [launch(cluster.config, cluster.provider, name) for name in node_types(cluster.config)]
    disks = [m["Ebs"]["VolumeId"] for node in extra for m in describe(cluster.ec2, node)["BlockDeviceMappings"]]
    assert len(disks) == len(extra)
    cluster.provider.terminate_nodes(extra)
    assert {describe(cluster.ec2, node)["State"]["Name"] for node in extra} == {"terminated"}
    left = {volume["VolumeId"] for volume in cluster.ec2.describe_volumes()["Volumes"]}
    assert left.isdisjoint(disks)


def test_room_is_counted_by_what_ray_leaves_on_the_head(cluster: Cluster) -> None:
    """The file that `ray up` copies there, as recorded for the tests of cluster_limits."""
    config, file = commands._set_up_config_for_head_node(copy.deepcopy(cluster.config), cluster.provider, False)
    with file:
        found = ClusterLimits.of(yaml.safe_load(Path(config["file_mounts"]["~/ray_bootstrap_config.yaml"]).read_text()))
    assert found == limits("aws")
    assert found.places({"CPU": 1.0, "GPU": 1.0}) == cluster.config["max_workers"]
