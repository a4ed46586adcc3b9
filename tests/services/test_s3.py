"""Storage in S3 over HTTP: transferred files, retries, outages, corruption, erasing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from erased_history import four_updates, image
from sandbox import REPOSITORY, Sandbox, generate

from renate_stages import errors, files, run_training_job
from renate_stages.actions.example_data import write_digits
from renate_stages.state import MANIFEST, manifest, state
from renate_stages.storage import Storage, checksums, retries
from renate_stages.storage.states import copy_state

VALUES = {"learning_rate": 0.05, "memory_size": 300}


@pytest.fixture(autouse=True)
def client(cloud, monkeypatch):
    """Make this process a client of the cloud, with short pauses between retries."""
    for name, value in cloud.client_environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(retries, "PAUSES", (0.05, 0.1, 0.2))


@pytest.fixture
def url(bucket):
    return f"s3://{bucket}/states"


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """Return a local folder with the states of two updates; tests must not change them."""
    folder = tmp_path_factory.mktemp("states")
    source = None
    for number in (1, 2):
        write_digits(folder / f"week-{number}", number)
        run_training_job(
            VALUES,
            data_path=folder / f"week-{number}",
            input_state_url=source,
            output_state_url=folder / str(number),
            **arguments(folder),
        )
        source = folder / str(number)
    return folder


def arguments(folder):
    config = REPOSITORY / "renate_config.py"
    return {"max_epochs": 1, "config_file": config, "working_directory": folder / "work"}


def sizes_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }


def put_data(url, folder):
    Storage.at(url).put({path.name: path for path in folder.iterdir()}, "data")


def download_prefix(cloud, bucket, prefix, folder):
    """Download all objects under a prefix, as `aws s3 sync` does."""
    s3 = cloud.inside("s3")
    for found in s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]:
        path = folder / found["Key"].removeprefix(f"{prefix}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, found["Key"], str(path))
    return folder


def test_second_update_transfers_only_new_files(cloud, bucket, url, states, tmp_path):
    results, marks = [], []
    for number in (1, 2):
        put_data(f"s3://{bucket}/week-{number}", states / f"week-{number}")
        marks.append(cloud.mark())
        results.append(
            run_training_job(
                VALUES,
                data_path=f"s3://{bucket}/week-{number}",
                input_state_url=f"{url}/1" if number == 2 else None,
                output_state_url=f"{url}/{number}",
                **arguments(tmp_path),
            )
        )
        plain = download_prefix(cloud, bucket, f"states/{number}", tmp_path / str(number))
        state.check(plain)
        assert (plain / MANIFEST).read_bytes() == (states / str(number) / MANIFEST).read_bytes()

    before = manifest.read_manifest(states / "1")["files"]
    after = manifest.read_manifest(states / "2")["files"]
    known = {entry["sha256"] for entry in before.values()}
    new = {name: entry["size"] for name, entry in after.items() if entry["sha256"] not in known}
    new[MANIFEST] = (states / "2" / MANIFEST).stat().st_size
    assert cloud.uploads(marks[1], f"{url}/2/") == new
    assert cloud.uploads(marks[1]) == {f"{url}/2/{name}": size for name, size in new.items()}
    assert sum(new.values()) < 0.9 * sum(sizes_of(states / "2").values())
    assert (results[1].sent.files, results[1].sent.bytes) == (len(new), sum(new.values()))

    fetched = cloud.downloads(marks[1])
    assert fetched.keys() == {f"{url}/1/{MANIFEST}"} | {
        f"s3://{bucket}/week-2/{name}" for name in sizes_of(states / "week-2")
    }, "the first update's state is already local"


def test_another_machine_downloads_only_the_missing_files_of_a_later_state(
    cloud, bucket, url, states, tmp_path
):
    put_data(f"s3://{bucket}/week-2", states / "week-2")
    for number in (1, 2):
        copy_state(states / str(number), f"{url}/{number}")
    for number in (1, 2):
        mark = cloud.mark()
        result = run_training_job(
            VALUES,
            data_path=f"s3://{bucket}/week-2",
            input_state_url=f"{url}/{number}",
            **arguments(tmp_path),
        )
        fetched = cloud.downloads(mark)
        assert sum(fetched.values()) == result.fetched.bytes
    names = manifest.read_manifest(states / "2")["files"]
    known = {entry["sha256"] for entry in manifest.read_manifest(states / "1")["files"].values()}
    new = {f"{url}/2/{name}" for name in names if names[name]["sha256"] not in known}
    assert fetched.keys() == new | {f"{url}/2/{MANIFEST}"}


@pytest.mark.parametrize("fault", ["throttle", "fail", "drop", "lose_answer"])
def test_transient_s3_errors_are_retried(cloud, url, states, tmp_path, fault):
    operations = ("PutObject", "HeadObject", "GetObject", "ListObjectsV2")
    faults = [getattr(cloud, fault)(f"s3:{operation}", times=3) for operation in operations]
    copy_state(states / "1", f"{url}/1")
    copy_state(f"{url}/1", tmp_path / "back")
    state.check(tmp_path / "back")
    assert [each.hits for each in faults] == [3] * 4


def test_outage_during_upload_keeps_a_complete_local_state_and_no_remote_state(
    cloud, bucket, url, states, tmp_path
):
    put_data(f"s3://{bucket}/week-1", states / "week-1")
    slow = cloud.delay("s3:PutObject", 0.05, times=None)
    over = threading.Event()

    def go_offline():
        while slow.hits < 12:
            time.sleep(0.01)
        with cloud.offline():
            over.wait(60)

    leaving = threading.Thread(target=go_offline)
    leaving.start()
    try:
        with pytest.raises(errors.StateNotSentError, match="failed 4 times") as found:
            run_training_job(
                VALUES,
                data_path=f"s3://{bucket}/week-1",
                output_state_url=f"{url}/1",
                **arguments(tmp_path),
            )
    finally:
        over.set()
        leaving.join()
    cloud.clear_faults()
    (unsent,) = (tmp_path / "work" / "unsent").iterdir()
    state.check(unsent)
    assert str(unsent) in str(found.value)
    arrived = Storage.at(f"{url}/1").sizes()
    assert MANIFEST not in arrived and 0 < len(arrived) < len(sizes_of(unsent))
    with pytest.raises(errors.MissingFileError, match="no state here"):
        run_training_job(VALUES, input_state_url=f"{url}/1", **arguments(tmp_path))

    mark = cloud.mark()
    copy_state(unsent, f"{url}/1")
    assert cloud.uploads(mark, f"{url}/1/").keys() == sizes_of(unsent).keys() - arrived.keys()
    state.check(download_prefix(cloud, bucket, "states/1", tmp_path / "plain"))


def test_killed_copy_state_leaves_no_remote_state_and_resumes_its_upload(
    cloud, url, states, tmp_path
):
    slow = cloud.delay("s3:PutObject", 0.2, times=None)
    command = ["renate-stages", "copy-state", str(states / "1"), f"{url}/1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    sending = subprocess.Popen(command, env=os.environ | {"PATH": path}, start_new_session=True)
    while slow.hits < 10 and sending.poll() is None:
        time.sleep(0.01)
    os.killpg(sending.pid, signal.SIGKILL)
    sending.wait()
    cloud.clear_faults()
    time.sleep(0.3)  # for requests in flight
    arrived = Storage.at(f"{url}/1").sizes()
    assert MANIFEST not in arrived and 0 < len(arrived) < len(sizes_of(states / "1")) - 1
    mark = cloud.mark()
    copy_state(states / "1", f"{url}/1")
    sent = cloud.uploads(mark, f"{url}/1/")
    assert sent.keys() == sizes_of(states / "1").keys() - arrived.keys()


def test_corrupted_upload_is_detected_and_sent_again(cloud, url, states, monkeypatch, tmp_path):
    from s3fs import S3FileSystem

    whole, wrong = S3FileSystem.call_s3, []

    def call(self, method, *rest, **arguments):
        if method == "put_object" and "safetensors" in arguments["Key"] and len(wrong) < 2:
            wrong.append(arguments["Key"])
            del arguments["ContentMD5"]  # with it, the service would refuse the body
            content = arguments["Body"]
            arguments["Body"] = content[:-1] + bytes([content[-1] ^ 1])
        return whole(self, method, *rest, **arguments)

    monkeypatch.setattr(S3FileSystem, "call_s3", call)
    copy_state(states / "1", f"{url}/1")
    assert len(wrong) == 2
    copy_state(f"{url}/1", tmp_path / "back")
    state.check(tmp_path / "back")


def test_multipart_upload_of_a_large_file_is_verified(cloud, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(checksums, "PART", 5 * 2**20)
    (tmp_path / "large").write_bytes(os.urandom(11 * 2**20))
    paths = {"large": tmp_path / "large"}
    storage = Storage.at(f"s3://{bucket}/files")
    throttled, mark = cloud.throttle("s3:UploadPart", times=2), cloud.mark()
    storage.put(paths)
    assert [call.name for call in cloud.calls(mark)].count("s3:UploadPart") == 3
    assert throttled.hits == 2 and cloud.uploads(mark, f"{storage.url}/") == {"large": 11 * 2**20}
    assert storage.same(paths) == {"large"}
    copy = storage.child("copy")
    copy.copy(storage, {"large": "large"})
    assert copy.same(paths) == {"large"}, "a single-part copy has another ETag"
    entry = {"size": 11 * 2**20, "sha256": files.sha256(tmp_path / "large")}
    storage.get({"large": tmp_path / "back"}, {"large": entry})
    storage.write("at hand", (tmp_path / "large").read_bytes())
    assert storage.same({"at hand": tmp_path / "large"}) == {"at hand"}
    content = bytearray((tmp_path / "large").read_bytes())
    content[-1] ^= 1
    (tmp_path / "large").write_bytes(content)
    assert storage.same(paths) == set()


def test_objects_of_another_client_are_visible_immediately(cloud, bucket):
    storage = Storage.at(f"s3://{bucket}/files")
    assert storage.sizes() == {} and not storage.has("a")
    cloud.inside("s3").put_object(Bucket=bucket, Key="files/a", Body=b"abc")
    cloud.inside("s3").put_object(Bucket=bucket, Key="files/", Body=b"")  # as S3's web console does
    assert storage.sizes() == {"a": 3} and storage.has("a") and storage.read("a") == b"abc"


def test_permanent_s3_errors_are_reported_without_retries(cloud, bucket, url, states, monkeypatch):
    denied = cloud.refuse("s3:PutObject", "AccessDenied", "Access Denied", None, status=403)
    with pytest.raises(errors.RemoteRefusedError, match="get-caller-identity"):
        Storage.at(url).write("a", b"abc")
    assert denied.hits == 1
    cloud.clear_faults()
    with pytest.raises(errors.RemoteRefusedError, match="the bucket does not exist"):
        copy_state(states / "1", f"s3://{bucket}-not/1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(errors.RemoteRefusedError, match="AWS_ACCESS_KEY_ID"):
        Storage.at(url).sizes()


class S3Project(Sandbox):
    @property
    def environment(self):
        kept = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        del kept["AWS_ENDPOINT_URL"]  # it is in .dvc/config
        return super().environment | kept


def test_clone_pulls_data_and_parent_state_from_an_s3_remote(cloud, bucket, tmp_path):
    endpoint = cloud.client_environment["AWS_ENDPOINT_URL"]
    remote = f"s3://{bucket}/updates"
    made = generate(tmp_path / "made", dvc_remote=remote, _s3_endpoint_url=endpoint)
    project = S3Project(made.root)
    project.run("renate-stages", "init")
    mark = cloud.mark()
    project.run("dvc", "push", "-q")
    sent = cloud.uploads(mark, f"{remote}/")
    assert sent and not any(name.startswith("..") for name in sent)
    mark = cloud.mark()
    clone = S3Project(project.clone().root)
    clone.run("dvc", "pull", "-q", "data/incoming.dvc", "parent.dvc")
    for folder in ("data/incoming", "parent-state"):
        assert clone.hashes(folder) == project.hashes(folder) != {}
    assert cloud.downloads(mark, f"{remote}/")
    assert "AWS" not in clone.read(".dvc/config")


def test_erase_removes_forgotten_rows_from_a_shared_bucket_only_on_request(
    cloud, bucket, tmp_path, monkeypatch
):
    """Objects are listed, read and deleted over the S3 protocol."""
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "test@example.org")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    for name, value in cloud.client_environment.items():
        monkeypatch.setenv(name, value)
    story, s3 = four_updates(tmp_path), cloud.inside("s3")
    for path in (tmp_path / "remote").rglob("*"):
        if path.is_file():
            key = f"updates/{path.relative_to(tmp_path / 'remote').as_posix()}"
            s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    for path in story.cache.rglob("*"):  # an unpulled clone: reads come from the bucket
        if path.is_file():
            path.unlink()
    endpoint = cloud.client_environment["AWS_ENDPOINT_URL"]
    storage = {"url": f"s3://{bucket}/updates", "endpointurl": endpoint}
    story.configure(core={"remote": "storage"}, storage=storage)
    story.commit("a bucket")

    def held() -> dict[str, bytes]:
        listed = s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        keys = [each["Key"] for each in listed]
        return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    theirs = f"updates/files/md5/{'0' * 2}/{'0' * 30}"
    s3.put_object(Bucket=bucket, Key=theirs, Body=b"theirs")
    before = held()
    shown = story.erase()
    (remote, _) = shown.shares
    assert remote.left is not None and held() == before and remote.nbytes > 0
    listed = remote.listed.read_text().split()
    assert all(each.startswith(f"s3://{bucket}/updates/files/md5/") for each in listed)

    shown = story.erase(shared=True)
    after = held()
    assert theirs in after and before.items() >= after.items()
    assert {f"s3://{bucket}/{key}" for key in before.keys() - after.keys()} == set(listed)
    for number in (2, 11):
        assert not any(image(number) in content for content in after.values())
    assert any(image(25) in content for content in after.values())
