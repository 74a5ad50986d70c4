"""Errors of disks and of S3 in one sentence, and texts without the passwords of the addresses in them."""

from __future__ import annotations

import re

from singer_ray.errors import first_line
from singer_ray.storage.secrets import PASSWORDS, SECRETS

_PASSWORD = re.compile(r"""(://)[^\s/:@"<>]*:[^\s"<>]*@""")
_USER = re.compile(r"""(://)[^\s/@"'<>]+@""")
_SIGNED = re.compile(rf"""([?&](?:{SECRETS})=)[^&\s"'<>]+""", re.IGNORECASE)
_PAIR = re.compile(
    rf"""(?<![\w.-])((?:{PASSWORDS})\s*=\s*)(?:'(?:\\.|[^'])*'|"(?:\\.|[^"])*"|[^\s&;"<>]+)""", re.IGNORECASE
)
"""In key=value addresses (`host=db password=x`) and messages that quote them; short names would match words there."""
_ADVICE = [
    (re.compile(pattern), advice)
    for pattern, advice in (
        (
            "ExpiredToken|EXPIRED_TOKEN|[Tt]oken.{0,20}expired|RequestExpired",
            "The session has expired: log in again (aws sso login), or renew AWS_SESSION_TOKEN.",
        ),
        (
            "PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocation|"
            "[Rr]egion.{0,40}(wrong|expecting)|status 301",
            "The bucket is in another region: set AWS_REGION to it.",
        ),
        (
            "NoCredentials|Unable to locate credentials|CredentialRetrieval|[Cc]ould not load credentials",
            "Give credentials in the standard way: AWS_PROFILE, AWS_ACCESS_KEY_ID, or the role of the machine.",
        ),
        (
            "InvalidAccessKeyId|INVALID_ACCESS_KEY_ID|SignatureDoesNotMatch|INVALID_SIGNATURE|SIGNATURE_DOES_NOT_MATCH",
            "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
        ),
        (
            r"AccessDenied|ACCESS_DENIED|Forbidden|\(403\)",
            "These credentials lack a permission: allow s3:ListBucket, s3:GetObject, s3:PutObject, s3:DeleteObject, "
            "s3:AbortMultipartUpload and s3:ListBucketMultipartUploads there (with export.tags "
            "s3:PutObjectTagging too).",
        ),
        ("RequestTimeTooSkewed|REQUEST_TIME_TOO_SKEWED", "Set the clock of this machine."),
        ("NoSuchBucket|NO_SUCH_BUCKET", "Make the bucket first: aws s3 mb s3://BUCKET."),
        ("InvalidStorageClass", "Correct export.storage_class (STANDARD, STANDARD_IA, INTELLIGENT_TIERING, ...)."),
        ("InvalidObjectState", "It is in an archive: restore it there first, or publish with another storage class."),
        ("KMS|InvalidEncryptionAlgorithm", "Check export.encryption and export.kms_key."),
        (
            "EndpointConnectionError|Could not connect|ConnectTimeout|Connection refused|NewConnectionError",
            "Check the endpoint and the network.",
        ),
        (
            r"No space left|Disk quota|File too large|[Ee]rrno (28|122|27)\b",
            "Free some space there, or give another address.",
        ),
        (r"Read-only file system|Permission denied|[Ee]rrno (30|13)\b", "Give a folder that may be written to."),
    )
]


def reason(error: Exception) -> str:
    """An error of a file system or of S3 as one sentence, with a second one of advice when the cause is known."""
    text = f"{without_credentials(first_line(error))[:300]}."
    return next((f"{text} {advice}" for pattern, advice in _ADVICE if pattern.search(str(error))), text)


def without_credentials(text: str) -> str:
    """Masks users, passwords and signatures of the addresses in a text: `db://me:secret@host` -> `db://***@host`.

    This includes addresses such as `host=db password=secret`, and parameters (`?sslpassword=secret`). It masks too much
    rather than too little: a password may hold any character but white space, quotes and angle brackets.
    """
    return _PAIR.sub(r"\1***", _SIGNED.sub(r"\1***", _USER.sub(r"\1***@", _PASSWORD.sub(r"\1***@", text))))
