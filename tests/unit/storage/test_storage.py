"""Files under a URL: upload, download, verification and retries."""

from __future__ import annotations

import errno
import hashlib
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from renate_stages import errors, files
from renate_stages.storage import Storage, Traffic, checksums, retries, services
from renate_stages.storage import progress as progress_module
from renate_stages.storage.progress import Progress, readable


@pytest.fixture(autouse=True)
def service(monkeypatch):
    """An empty file system in memory, and retries that do not wait."""
    monkeypatch.setattr(retries, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    return MemoryFileSystem.store


@pytest.fixture(params=["memory", "path", "file"])
def storage(request, tmp_path):
    places = {"memory": "memory://bucket/1", "path": tmp_path / "there/1"}
    return Storage.at(places.get(request.param, f"file://{tmp_path}/there/1"))


@pytest.fixture
def paths(tmp_path):
    """Local files by name: some in folders, one empty."""
    found = {}
    for name, content in {"a": b"abc", "deep/er/b": b"\0" * 5000, "empty": b""}.items():
        found[name] = tmp_path / "here" / name
        found[name].parent.mkdir(parents=True, exist_ok=True)
        found[name].write_bytes(content)
    return found


def entries_of(paths):
    return {
        name: {"size": path.stat().st_size, "sha256": files.sha256(path)}
        for name, path in paths.items()
    }


def flaky(monkeypatch, method, *failures):
    """Let a method of the file system fail with each given error in turn, and then work."""
    whole, left, lock = getattr(MemoryFileSystem, method), list(failures), threading.Lock()
    calls = []

    def call(self, *args, **kwargs):
        with lock:
            calls.append(args)
            failure = left.pop(0) if left else None
        if failure is not None:
            raise failure
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, method, call)
    return calls


class AnswerError(Exception):
    """An error with the same attributes as a `ClientError` of botocore."""

    def __init__(self, code, status):
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def caused(error, cause):
    error.__cause__ = cause
    return error


class TestTransfers:
    def test_files_are_uploaded_listed_downloaded_and_removed(self, storage, paths, tmp_path):
        sizes = {"a": 3, "deep/er/b": 5000, "empty": 0}
        assert storage.sizes() == {} and not storage.has("a")
        assert storage.put(paths) == Traffic(3, 5003)
        assert storage.sizes() == sizes
        assert storage.sizes("deep") == {"deep/er/b": 5000} == storage.sizes("deep/er/b")
        assert storage.child("deep").sizes() == {"er/b": 5000}
        assert storage.sizes_in(["deep/", "not there/"]) == {"deep/er/b": 5000}
        assert storage.has("a") and not storage.has("deep") and not storage.has("c")
        targets = {name: tmp_path / "back" / name for name in paths}
        assert storage.get(targets, entries_of(paths)) == Traffic(3, 5003)
        assert entries_of(targets) == entries_of(paths)
        storage.remove(["a", "never there"])
        assert storage.sizes().keys() == sizes.keys() - {"a"}

    def test_files_are_copied_by_the_service_without_upload(self, storage, paths):
        storage.put(paths)
        assert storage.child("copy").copy(storage, {"x/y": "deep/er/b"}) == Traffic()
        assert storage.child("copy").same({"x/y": paths["deep/er/b"]}) == {"x/y"}
        with pytest.raises(errors.MissingFileError, match="nothing"):
            storage.copy(storage, {"x": "nothing"})

    def test_copy_between_services_is_refused(self, tmp_path):
        with pytest.raises(errors.RemoteRefusedError, match="another service"):
            Storage.at("memory://bucket").copy(Storage.at(tmp_path), {"a": "a"})

    def test_files_are_compared_by_content_and_not_by_size(self, storage, paths):
        storage.put(paths)
        storage.write("a", b"xyz")
        assert storage.same(paths) == {"deep/er/b", "empty"}

    def test_whole_files_are_written_and_read(self, storage):
        storage.write("b/c", b"one")
        storage.write("b/c", b"three")
        assert storage.read("b/c") == b"three"
        with pytest.raises(errors.MissingFileError, match="nothing is missing"):
            storage.read("nothing")

    def test_version_of_a_file_changes_with_its_content(self, storage, paths):
        storage.put(paths)
        before = storage.versions()
        assert storage.versions() == before
        storage.write("a", b"xyz")
        after = storage.versions()
        assert {name for name in before if before[name] != after[name]} == {"a"}

    def test_upload_does_not_modify_local_files(self, storage, paths):
        before = {name: path.stat() for name, path in paths.items()}
        storage.put(paths)
        for name, path in paths.items():
            now = path.stat()
            assert (now.st_ino, now.st_mtime_ns) == (before[name].st_ino, before[name].st_mtime_ns)

    def test_upload_to_a_local_folder_replaces_hard_linked_files(self, tmp_path, paths):
        storage = Storage.at(tmp_path / "there")
        storage.write("a", b"old")
        (tmp_path / "linked").hardlink_to(tmp_path / "there" / "a")
        storage.put({"a": paths["a"]})
        storage.copy(storage, {"a": "a"})
        assert (tmp_path / "linked").read_bytes() == b"old"
        assert [path.name for path in (tmp_path / "there").iterdir()] == ["a"]

    def test_files_are_uploaded_in_parallel(self, paths, monkeypatch):
        together = threading.Barrier(3, timeout=20)
        whole = MemoryFileSystem.put_file

        def meet(self, *args, **kwargs):
            together.wait()  # breaks if uploads are sequential
            return whole(self, *args, **kwargs)

        monkeypatch.setattr(MemoryFileSystem, "put_file", meet)
        assert Storage.at("memory://b").put(paths).files == 3


class TestFailures:
    @pytest.mark.parametrize(
        "failure",
        [
            ConnectionResetError("reset"),
            TimeoutError(),
            caused(OSError(errno.EBUSY, "slow down"), AnswerError("SlowDown", 503)),
            AnswerError("ServiceUnavailable", 503),
            AnswerError("503", 503),
            AnswerError("Unheard", 500),
            AnswerError("Unheard", 429),
            type("ReadTimeoutError", (type("HTTPClientError", (Exception,), {}),), {})("slow"),
        ],
        ids=repr,
    )
    def test_temporary_error_is_retried(self, paths, monkeypatch, failure):
        calls = flaky(monkeypatch, "put_file", failure, failure)
        storage = Storage.at("memory://bucket")
        storage.put({"a": paths["a"]})
        assert len(calls) == 3 and storage.read("a") == b"abc"

    @pytest.mark.parametrize(
        ("failure", "message"),
        [
            (PermissionError("no"), "aws sts get-caller-identity"),
            (caused(PermissionError("no"), AnswerError("AccessDenied", 403)), "get-caller-ident"),
            (caused(FileNotFoundError("x"), AnswerError("NoSuchBucket", 404)), "create the bucket"),
            (type("NoCredentialsError", (Exception,), {})("none"), "AWS_ACCESS_KEY_ID"),
            (AnswerError("InvalidRequest", 400), "InvalidRequest"),
            (NotImplementedError("read-only"), "read-only"),
        ],
        ids=repr,
    )
    def test_permanent_error_is_reported_without_retry(self, paths, monkeypatch, failure, message):
        calls = flaky(monkeypatch, "put_file", *[failure] * 9)
        with pytest.raises(errors.RemoteRefusedError, match=message) as found:
            Storage.at("memory://bucket").put({"a": paths["a"]})
        assert len(calls) == 1 and "memory://bucket/a" in str(found.value)

    def test_persistent_temporary_error_reports_the_number_of_attempts(self, paths, monkeypatch):
        calls = flaky(monkeypatch, "put_file", *[ConnectionResetError("reset")] * 9)
        with pytest.raises(errors.RemoteUnreachableError, match=r"failed 4 times.*reset"):
            Storage.at("memory://bucket").put({"a": paths["a"]})
        assert len(calls) == 4

    def test_programming_error_is_raised_unchanged(self, paths, monkeypatch):
        flaky(monkeypatch, "put_file", TypeError("a defect"))
        with pytest.raises(TypeError, match="a defect"):
            Storage.at("memory://bucket").put({"a": paths["a"]})

    def test_full_disk_error_is_raised_unchanged(self, tmp_path, monkeypatch):
        Storage.at("memory://b").write("a", b"abc")
        flaky(monkeypatch, "get_file", OSError(errno.ENOSPC, "full"))
        with pytest.raises(OSError, match="full"):
            Storage.at("memory://b").get({"a": tmp_path / "a"}, {"a": {"size": 3}})

    def test_failed_upload_starts_no_further_files_while_others_finish(self, tmp_path, monkeypatch):
        calls = []

        def put(self, local, path, **kwargs):
            calls.append(path)
            if path.endswith("/0"):
                time.sleep(0.3)
            raise PermissionError("no")

        monkeypatch.setattr(MemoryFileSystem, "put_file", put)
        (tmp_path / "a").write_bytes(b"abc")
        with pytest.raises(errors.RemoteRefusedError):
            Storage.at("memory://b").put({str(number): tmp_path / "a" for number in range(1000)})
        assert len(calls) < 100

    def test_retry_pauses_grow_and_are_randomized(self, monkeypatch):
        waited: list[float] = []
        monkeypatch.setattr(retries, "PAUSES", (1.0, 2.0, 4.0))
        monkeypatch.setattr(retries.time, "sleep", waited.append)

        def fail():
            raise TimeoutError

        for _ in range(20):
            with pytest.raises(errors.RemoteUnreachableError):
                retries.attempt("asking", "memory://b", fail)
        for number, pause in enumerate((1.0, 2.0, 4.0)):
            of_this = waited[number::3]
            assert pause / 2 <= min(of_this) < max(of_this) <= pause * 1.5


class TestDamagedTransfers:
    @pytest.mark.parametrize("wrong", [b"ab", b"xyz", b""])
    def test_upload_that_arrives_damaged_is_repeated(self, paths, monkeypatch, wrong):
        whole, times = MemoryFileSystem.put_file, []

        def put(self, local, path, **kwargs):
            times.append(path)
            if len(times) < 3:
                self.pipe_file(path, wrong)
            else:
                whole(self, local, path, **kwargs)

        monkeypatch.setattr(MemoryFileSystem, "put_file", put)
        storage = Storage.at("memory://b")
        storage.put({"a": paths["a"]})
        assert storage.read("a") == b"abc" and len(times) == 3

    def test_upload_that_always_arrives_damaged_is_an_error(self, paths, monkeypatch):
        monkeypatch.setattr(
            MemoryFileSystem, "put_file", lambda self, _, path, **__: self.pipe_file(path, b"xyz")
        )
        with pytest.raises(
            errors.DamagedTransferError,
            match=r"memory://b/a .*differs from the uploaded file",
        ):
            Storage.at("memory://b").put({"a": paths["a"]})

    @pytest.mark.parametrize(
        ("content", "problem"), [(b"xyz", "SHA-256"), (b"abcd", "4 bytes, expected 3")]
    )
    def test_damaged_download_keeps_the_existing_file(self, tmp_path, paths, content, problem):
        storage, target = Storage.at("memory://b"), tmp_path / "back" / "a"
        storage.write("a", content)
        target.parent.mkdir()
        target.write_bytes(b"old")
        with pytest.raises(errors.DamagedTransferError, match=problem):
            storage.get({"a": target}, entries_of(paths))
        assert target.read_bytes() == b"old" and len(list(target.parent.iterdir())) == 1

    def test_interrupted_download_leaves_no_local_file(self, tmp_path, monkeypatch, paths):
        storage, target = Storage.at("memory://b"), tmp_path / "back" / "a"
        storage.write("a", b"abc")

        def half(self, path, local, **kwargs):
            Path(local).write_bytes(b"a")
            raise KeyboardInterrupt

        monkeypatch.setattr(MemoryFileSystem, "get_file", half)
        with pytest.raises(KeyboardInterrupt):
            storage.get({"a": target}, entries_of(paths))
        assert list(target.parent.iterdir()) == []


class TestStorageUrls:
    @pytest.mark.parametrize(
        ("url", "problem"),
        [
            ("nothing://bucket/x", "protocol 'nothing' is unknown"),
            ("s3://", "the URL has no bucket"),
            ("s3:///x", "the URL has no bucket"),
            ("gs://bucket/x", "gcsfs"),
        ],
    )
    def test_invalid_or_unsupported_url_is_refused(self, url, problem):
        with pytest.raises(errors.InvalidUrlError, match=problem):
            Storage.at(url)

    def test_s3_url_without_s3fs_names_the_missing_extra(self, monkeypatch):
        def missing(*_, **__):
            raise ImportError("Install s3fs to access S3")

        monkeypatch.setattr(fsspec, "url_to_fs", missing)
        with pytest.raises(errors.MissingExtraError, match=r"renate-stages\[s3\]"):
            Storage.at("s3://bucket/x")

    def test_storage_url_has_no_trailing_slash(self):
        storage = Storage.at("s3://bucket/x/")
        assert storage.url == "s3://bucket/x" and storage.url_of("a/b") == "s3://bucket/x/a/b"
        assert storage.child("y").url == "s3://bucket/x/y"
        assert Storage.at("memory://").url_of("a") == "memory://a"


class TestETags:
    """An ETag is the content's MD5, or the MD5 of the parts' MD5s and the number of parts."""

    def test_etag_of_a_single_upload_verifies_the_content(self, tmp_path):
        (tmp_path / "a").write_bytes(b"abc")
        right = {"ETag": '"900150983cd24fb0d6963f7d28e17f72"'}
        for content in (b"abc", tmp_path / "a"):
            assert checksums.agrees_with_etag(right, content) is True
        assert checksums.agrees_with_etag(right, b"abd") is False

    def test_etag_of_a_multipart_upload_verifies_the_content(self, tmp_path, monkeypatch):
        monkeypatch.setattr(checksums, "PART", 2)
        (tmp_path / "a").write_bytes(b"abc")
        parts = hashlib.md5(b"ab").digest() + hashlib.md5(b"c").digest()
        right = {"ETag": f'"{hashlib.md5(parts).hexdigest()}-2"'}
        for content in (b"abc", tmp_path / "a"):
            assert checksums.agrees_with_etag(right, content) is True
        assert checksums.agrees_with_etag(right, b"abd") is False
        assert checksums.agrees_with_etag({"ETag": f'"{"0" * 32}-3"'}, b"abc") is None

    @pytest.mark.parametrize(
        "answer",
        [
            {},
            {"ETag": '"0x8D"'},
            {"ETag": f'"{"0" * 32}"', "ServerSideEncryption": "aws:kms"},
            {"ETag": f'"{"0" * 32}"', "SSECustomerAlgorithm": "AES256"},
        ],
    )
    def test_etag_that_does_not_depend_on_the_content_is_inconclusive(self, answer):
        assert checksums.agrees_with_etag(answer, b"abc") is None

    def test_largest_file_has_no_more_parts_than_s3_allows(self):
        assert -(-5 * 2**40 // checksums.part_size(5 * 2**40)) <= 10_000


class FakeS3:
    """An S3 client that gives the same answer for each object."""

    protocol = ("s3", "s3a")

    def __init__(self, **head):
        self.head, self.asked = head, []

    def split_path(self, path):
        return (*path.split("/", 1), None)

    def call_s3(self, method, **arguments):
        self.asked.append(method)
        return self.head if method == "head_object" else {"ETag": self.head["ETag"]}


class TestS3Objects:
    RIGHT, OTHER = '"900150983cd24fb0d6963f7d28e17f72"', f'"{"0" * 32}"'

    def test_upload_with_a_matching_etag_needs_no_head_request(self):
        s3 = FakeS3(ETag=self.RIGHT, ContentLength=3)
        Storage("s3://b", services.S3(s3), "b").write("a", b"abc")
        assert s3.asked == ["put_object"]

    def test_kms_encrypted_upload_is_verified_by_size(self):
        s3 = FakeS3(ETag=self.OTHER, ContentLength=3, ServerSideEncryption="aws:kms")
        Storage("s3://b", services.S3(s3), "b").write("a", b"abc")
        assert s3.asked == ["put_object", "head_object"]

    @pytest.mark.parametrize(
        "head",
        [
            {"ETag": OTHER, "ContentLength": 3},
            {"ETag": OTHER, "ContentLength": 2, "ServerSideEncryption": "aws:kms"},
        ],
    )
    def test_mismatching_upload_is_retried_and_then_an_error(self, head):
        s3 = FakeS3(**head)
        with pytest.raises(errors.DamagedTransferError):
            Storage("s3://b", services.S3(s3), "b").write("a", b"abc")
        assert s3.asked == ["put_object", "head_object"] * 4


class TestProgress:
    def test_progress_without_a_terminal_is_one_plain_line(self, capsys):
        with Progress("uploading", "state", "memory://b", 2, 3000) as progress:
            progress.add(1000)
            progress.add(2000)
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("uploading state: 2 files, 3.0 kB, in ")
        assert err.count("\n") == 1

    def test_progress_of_a_long_transfer_prints_intermediate_lines(self, capsys, monkeypatch):
        monkeypatch.setattr(progress_module, "_QUIET", -1.0)
        with Progress("uploading", "state", "memory://b", 2, 3000) as progress:
            progress.add(1000)
        assert "uploading state: 1 of 2 files, 1.0 kB of 3.0 kB\n" in capsys.readouterr().err

    def test_progress_on_a_terminal_is_a_bar(self, capsys, monkeypatch):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        with Progress("downloading", "data", "memory://b", 2, 3000) as progress:
            progress.add(1500)
        line = f"\rdownloading data [{'#' * 12}{' ' * 12}] 1 of 2 files, 1.5 kB of 3.0 kB\x1b[K\n"
        assert capsys.readouterr().err == line

    def test_sizes_are_printed_with_units(self):
        shown = [readable(size) for size in (0, 999, 1500, 2_500_000, 3e12)]
        assert shown == ["0 bytes", "999 bytes", "1.5 kB", "2.5 MB", "3000.0 GB"]


class TestReading:
    def test_read_refuses_files_above_the_size_limit(self, storage):
        storage.write("a", b"abc")
        storage.write("empty", b"")
        assert storage.read("a", 3) == b"abc" and storage.read("empty", 0) == b""
        with pytest.raises(errors.OversizedFileError, match="at least 3 bytes, but at most 2 are"):
            storage.read("a", 2)

    def test_read_of_a_growing_file_fetches_one_byte_above_the_limit_at_most(self, monkeypatch):
        storage = Storage.at("memory://b")
        storage.write("a", b"x" * 10_000)
        ask = services.Service.ask
        monkeypatch.setattr(
            services.Service, "ask", lambda self, path: {**ask(self, path), "size": 3}
        )
        fetched: list[int] = []
        cat = MemoryFileSystem.cat_file

        def counted(self, *given, **named):
            content = cat(self, *given, **named)
            fetched.append(len(content))
            return content

        monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
        with pytest.raises(errors.OversizedFileError):
            storage.read("a", 4)
        assert fetched == [5]


class TestSameFiles:
    """`same` returns the files that the storage has with equal content, as far as it can tell."""

    def test_same_compares_only_the_given_folders(self, storage, paths):
        storage.put(paths)
        storage.write("a", b"xyz")
        names = {name: path for name, path in paths.items() if "/" in name}
        assert storage.same(names, ["deep/"], ()) == {"deep/er/b"}
        assert storage.same(paths, [""], ()) == {"deep/er/b", "empty"}

    def test_same_without_checksums_compares_sizes_of_undoubted_files(self, paths, monkeypatch):
        storage = Storage.at("memory://b")
        storage.put(paths)
        storage.write("a", b"xyz")
        monkeypatch.setattr(services.Service, "agrees", lambda *_: None)
        assert storage.same(paths, [""], ()) == set(paths)
        assert storage.same(paths, [""], ["a"]) == set(paths) - {"a"}
        assert storage.same(paths) == set()

    def test_same_checks_for_kms_encryption_if_an_etag_differs(self, tmp_path):
        """An S3 listing has only the ETag, which under KMS is not a hash of the content."""
        (tmp_path / "a").write_bytes(b"abc")
        other = f'"{"0" * 32}"'
        for encryption, expected in (({"ServerSideEncryption": "aws:kms"}, {"a"}), ({}, set())):
            s3 = FakeS3(ETag=other, ContentLength=3, **encryption)
            listed = {"b/a": {"size": 3, "type": "file", "ETag": other}}
            s3.find = lambda path, listed=listed, **_: listed
            s3.invalidate_cache = lambda: None
            storage = Storage("s3://b", services.S3(s3), "b")
            assert storage.same({"a": tmp_path / "a"}, [""], ()) == expected
            assert s3.asked == ["head_object"]


def test_download_of_a_file_that_is_damaged_in_the_storage_is_not_retried(
    tmp_path, monkeypatch, paths
):
    storage = Storage.at("memory://b")
    storage.write("a", b"xyz")
    calls = flaky(monkeypatch, "get_file")
    with pytest.raises(errors.DamagedTransferError, match="SHA-256 differs"):
        storage.get({"a": tmp_path / "back"}, entries_of(paths))
    assert len(calls) == 1


def test_download_without_a_known_sha256_is_verified_by_the_version(tmp_path, monkeypatch):
    storage = Storage.at("memory://b")
    storage.write("a", b"abc")
    whole, times = MemoryFileSystem.get_file, []

    def get(self, path, local, **kwargs):
        times.append(path)
        whole(self, path, local, **kwargs)
        if len(times) < 3:
            Path(local).write_bytes(b"xyz")

    monkeypatch.setattr(MemoryFileSystem, "get_file", get)
    storage.get({"a": tmp_path / "a"}, storage.versions())
    assert (tmp_path / "a").read_bytes() == b"abc" and len(times) == 3
