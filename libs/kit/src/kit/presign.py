"""Presigned URLs of an S3 store (AWS Signature Version 4, query form), made without asking the store.

The minio SDK signs the host alone. Here any header is signed with it, so that a URL admits only an upload of the
right length and checksum, and the signing key is kept for the day: a manifest needs thousands of URLs at once.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import SplitResult, quote


class Presigner:
    def __init__(
        self, address: Callable[[str, str], SplitResult], access_key: str, secret_key: str, region: str
    ) -> None:
        """`address(bucket, key)` is the object's URL, its path quoted."""
        self._address = address
        self._access_key = access_key
        self._region = region
        self._key = lru_cache(maxsize=2)(lambda day: _signing_key(secret_key, day, region))

    def url(
        self,
        method: str,
        bucket: str,
        key: str,
        expires: timedelta,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        now: datetime | None = None,
    ) -> str:
        """The caller must send exactly `headers` (names in small letters)."""
        address = self._address(bucket, key)
        stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{stamp[:8]}/{self._region}/s3/aws4_request"
        signed = {"host": address.netloc, **(headers or {})}
        names = ";".join(sorted(signed))
        fields = {
            **(query or {}),
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{self._access_key}/{scope}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(int(expires.total_seconds())),
            "X-Amz-SignedHeaders": names,
        }
        encoded = "&".join(f"{quote(n, safe='')}={quote(v, safe='')}" for n, v in sorted(fields.items()))
        lines = [f"{name}:{signed[name]}" for name in sorted(signed)]
        request = "\n".join([method, address.path, encoded, *lines, "", names, "UNSIGNED-PAYLOAD"])
        digest = hashlib.sha256(request.encode()).hexdigest()
        to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, digest])
        signature = hmac.new(self._key(stamp[:8]), to_sign.encode(), hashlib.sha256).hexdigest()
        return address._replace(query=f"{encoded}&X-Amz-Signature={signature}").geturl()


def _signing_key(secret_key: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
