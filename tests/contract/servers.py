"""Real S3 servers on this machine: SeaweedFS out of the test environment, MinIO where it is on the PATH."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKET = "montessori"
ACCESS_KEY, SECRET_KEY = "TESTACCESSKEY000", "test-secret-key-0123456789"
READER_KEY, READER_SECRET = "READERACCESSKEY0", "reader-secret-key-0123456789"
START_S = 60.0


class Server:
    """One server process over one data folder; it can be stopped and started again on the same port."""

    def __init__(self, command: Sequence[str], folder: Path, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self._command = list(command)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, "MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY},
            )
        self._make_bucket()

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _make_bucket(self) -> None:
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(
                connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}
            ),
        )
        end = time.monotonic() + START_S
        while True:
            try:
                if BUCKET not in {each["Name"] for each in client.list_buckets()["Buckets"]}:
                    client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
                return
            except (BotoCoreError, ClientError) as error:
                assert self._process is not None
                if time.monotonic() > end or self._process.poll() is not None:
                    log = (self._folder / "server.log").read_text(errors="replace")[-2000:]
                    raise AssertionError(f"the server did not start: {error}\n{log}") from None
                time.sleep(0.1)


def seaweedfs(folder: Path) -> Server | None:
    """SeaweedFS as one process, with an administrator's keys and a reader's; None where it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    program = str(beside) if beside.exists() else shutil.which("weed")
    if program is None:
        return None
    identities = [
        _identity("admin", ACCESS_KEY, SECRET_KEY, ["Admin", "Read", "Write", "List", "Tagging"]),
        _identity("reader", READER_KEY, READER_SECRET, [f"Read:{BUCKET}", f"List:{BUCKET}"]),
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    (folder / "data").mkdir()
    port = free_port()
    services = ("master", "volume", "filer", "s3")
    ports = [f"-{name}.port.grpc={free_port()}" for name in services]
    ports += [f"-{name}.port={port if name == 's3' else free_port()}" for name in services]
    command = [program, "-logtostderr", "mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}/data"]
    # What else it would serve has fixed ports, which two servers of two test workers would fight for.
    ports += [f"-admin.port={free_port()}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-s3.config={folder}/s3.json", "-admin.ui=false", "-webdav=false", *ports]
    return Server(command, folder, port)


def minio(folder: Path) -> Server | None:
    """MinIO; None where it is not on the PATH."""
    program = shutil.which("minio")
    if program is None:
        return None
    port, console = free_port(), free_port()
    command = [program, "server", f"{folder}/data", "--address", f"127.0.0.1:{port}", "--quiet"]
    return Server([*command, "--console-address", f"127.0.0.1:{console}"], folder, port)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _identity(name: str, access: str, secret: str, actions: list[str]) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": access, "secretKey": secret}], "actions": actions}
