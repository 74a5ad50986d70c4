"""Files at local paths and in S3, their addresses, and safe reading of what comes from outside."""

from singer_ray.storage.drafts import DRAFT, sync, write_whole
from singer_ray.storage.explain import reason, without_credentials
from singer_ray.storage.folder import Folder
from singer_ray.storage.outside import read_json, read_json_mapping, read_yaml
from singer_ray.storage.reading import hashed
from singer_ray.storage.secrets import STUDY_URL, lacks_password, with_password, without_password
from singer_ray.storage.settings import TIMEOUT

__all__ = [
    "DRAFT",
    "STUDY_URL",
    "TIMEOUT",
    "Folder",
    "hashed",
    "lacks_password",
    "read_json",
    "read_json_mapping",
    "read_yaml",
    "reason",
    "sync",
    "with_password",
    "without_credentials",
    "without_password",
    "write_whole",
]
