"""A witness for tests: C2SP tlog-witness 1.0.0 over HTTP, with a memory of one log. It shares no code with ours."""

import re
import threading
from base64 import b64decode, b64encode
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from tests.support.foreign import scales_vkey
from tests.support.receiver import Answer, Hit, Receiver
from tlog_scales.signing import MLDSA44CosignatureSigner, Vkey, VkeySet
from tlog_scales.tlog import Checkpoint, ConsistencyProof, ConsistencyProofInvalid

REQUEST = re.compile(r"old (0|[1-9][0-9]*)\n((?:[A-Za-z0-9+/]{43}=\n){0,63})\n((?:[^\n]+\n){3,}\n(?:— [^\n]+\n)+)")


class LocalWitness:
    """`log_vkeys`: the keys of the logs it knows. `post_quantum`: cosigns with ML-DSA-44 as well.

    `trouble`: answers this once instead of an honest one. `time`: what it takes for the time.
    """

    def __init__(self, name: str, *log_vkeys: str, post_quantum: bool = False) -> None:
        self.name = name
        self._key = Ed25519PrivateKey.generate()
        self._quantum = MLDSA44PrivateKey.generate() if post_quantum else None
        self._logs = [Vkey.from_string(vkey) for vkey in log_vkeys]
        self._seen: dict[str, tuple[int, bytes]] = {}
        self._lock = threading.Lock()
        self.time = 1_800_000_000
        self.trouble: list[Answer] = []
        self.statuses: list[int] = []
        self.receiver = Receiver(self._answer)
        self.url = f"{self.receiver.url}/w"

    @property
    def vkey(self) -> str:
        return scales_vkey(Vkey(self.name, None, 4, self._key.public_key().public_bytes_raw()))

    @property
    def quantum_vkey(self) -> str:
        assert self._quantum is not None
        return scales_vkey(MLDSA44CosignatureSigner(self.name, self._quantum).vkey)

    def size(self, origin: str) -> int:
        return self._seen.get(origin, (0, b""))[0]

    def stop(self) -> None:
        self.receiver.stop()

    def _answer(self, hit: Hit) -> Answer:
        answer = self.trouble.pop(0) if self.trouble else self._honest(hit)
        self.statuses.append(answer[0])
        return answer

    def _honest(self, hit: Hit) -> Answer:
        found = REQUEST.fullmatch(hit.body.decode())
        if hit.path != "/w/add-checkpoint" or found is None:
            return 400, {}, b"malformed"
        old, proof, note = int(found[1]), [b64decode(line) for line in found[2].split("\n")[:-1]], found[3]
        checkpoint = Checkpoint.from_text(note)
        keys = [key for key in self._logs if key.name == checkpoint.origin]
        if not keys:
            return 404, {}, b"unknown log"
        if not VkeySet(*keys).verify(checkpoint.signatures, checkpoint):
            return 403, {}, b"not signed by the log"
        if old > checkpoint.size:
            return 400, {}, b"the old tree is larger"
        with self._lock:
            return self._extend(checkpoint, old, proof)

    def _extend(self, checkpoint: Checkpoint, old: int, proof: list[bytes]) -> Answer:
        size, root = self._seen.get(checkpoint.origin, (0, sha256(b"").digest()))
        if old != size:
            return 409, {"content-type": "text/x.tlog.size"}, f"{size}\n".encode()
        if old == checkpoint.size and root != checkpoint.root_hash:
            return 409, {}, b"two roots for one size"
        try:
            if old == 0 and proof:
                raise ConsistencyProofInvalid("nothing to prove")
            ConsistencyProof(old, checkpoint.size, proof).check(root, checkpoint.root_hash)
        except ConsistencyProofInvalid:
            return 422, {}, b"the proof does not verify"
        self._seen[checkpoint.origin] = (checkpoint.size, checkpoint.root_hash)
        return 200, {}, self._cosign(checkpoint).encode()

    def _cosign(self, checkpoint: Checkpoint) -> str:
        header = f"cosignature/v1\ntime {self.time}\n"
        signature = self.time.to_bytes(8, "big") + self._key.sign((header + checkpoint.serialize_body()).encode())
        public = self._key.public_key().public_bytes_raw()
        key_id = sha256(self.name.encode() + b"\n\x04" + public).digest()[:4]
        lines = f"— {self.name} {b64encode(key_id + signature).decode()}\n"
        if self._quantum is not None:
            lines += MLDSA44CosignatureSigner(self.name, self._quantum).sign(checkpoint).serialize() + "\n"
        return lines
