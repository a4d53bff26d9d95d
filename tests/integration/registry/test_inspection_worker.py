"""The inspecting process against the real S3 store."""

import hashlib
import io
import pickle
from pathlib import Path

from embedded import s3
from embedded.fixtures import S3
from registry.inspection import Inspector, Job, Part


async def test_a_directory_in_the_store_is_verified_and_inspected(infra_s3: S3, bucket: str, server_dir: Path) -> None:
    client = s3.client(infra_s3.endpoint, infra_s3.access_key, infra_s3.secret_key)
    numbers = pickle.dumps([float(n) for n in range(1_000_000)])  # 9 MB: several chunks
    files = {"MLmodel": b"flavors: {}\n", "data/model.pkl": numbers, "data/empty.txt": b""}
    parts = []
    for path, data in files.items():
        client.put_object(bucket, path, io.BytesIO(data), len(data))
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        parts.append(Part(path=path, url=client.presigned_get_object(bucket, path), digest=digest, size=len(data)))
    async with Inspector(root=server_dir) as inspector:
        examined = await inspector.run(Job(parts=tuple(parts)))
        assert [(p.path, p.digest, p.size) for p in examined.parts] == [(p.path, p.digest, p.size) for p in parts]
        assert (examined.inspection.format, examined.inspection.findings) == ("mlflow", ())

        client.remove_object(bucket, "data/model.pkl")
        examined = await inspector.run(Job(parts=tuple(parts)))
        assert [part.digest is None for part in examined.parts] == [False, True, False]
