"""What clients of a test's own S3 server need."""

from __future__ import annotations

from tests.servers import S3_ENVIRONMENT as ENVIRONMENT
from tests.servers import s3_server as moto_server

__all__ = ["CREDENTIALS", "ENVIRONMENT", "moto_server"]

CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
"""For clients that take them as arguments."""
