"""Example store: exact round trips, read-only memory maps and detection of damage."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from renate_stages.errors import DamagedStoreError, ExampleMismatchError, ExampleStructureError
from renate_stages.memory import ExampleSpec, ExampleStore, StoreWriter

ROW_BYTES = 2 * 3 + 8


def block(start: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows filled with their number: inputs (rows, 2, 3) uint8, targets (rows,) int64."""
    numbers = np.arange(start, start + rows)
    return np.broadcast_to(numbers[:, None, None], (rows, 2, 3)).astype(np.uint8), numbers


def write(path: Path, *blocks: tuple, rows_per_shard: int = 4, update: int = 1) -> ExampleStore:
    with StoreWriter(path, update, shard_bytes=rows_per_shard * ROW_BYTES) as writer:
        for each in blocks:
            writer.append(each)
    return ExampleStore.open(path)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def test_appended_blocks_are_written_in_order_as_shards_of_the_requested_size(tmp_path):
    store = write(tmp_path / "s", block(0, 3), block(3, 7))
    assert [shard.rows for shard in store.shards] == [4, 4, 2]
    assert sorted(contents(tmp_path / "s")) == [
        *(f"00001-0{n}.{field}.npy" for n in range(3) for field in ("inputs", "targets")),
        "index.json",
    ]
    assert [file.name for file in store.files()] == sorted(contents(tmp_path / "s"))
    np.testing.assert_array_equal(store.column("targets"), np.arange(10))
    assert (len(store), store.nbytes) == (10, 10 * ROW_BYTES)


@pytest.mark.parametrize("rows_per_shard", [1, 3, 100])
def test_gather_returns_rows_in_the_requested_order_with_repeats(tmp_path, rows_per_shard):
    store = write(tmp_path / "s", block(0, 10), rows_per_shard=rows_per_shard)
    rows = np.array([7, 0, 7, 3, 9, 1])
    inputs, targets = store.gather(rows)
    np.testing.assert_array_equal(targets, rows)
    np.testing.assert_array_equal(inputs, block(0, 10)[0][rows])


def test_nested_structures_and_all_dtypes_round_trip_exactly(tmp_path):
    columns = {
        dtype: np.arange(12).reshape(6, 2).astype(dtype)
        for dtype in [
            "bool",
            "int8",
            "uint16",
            "int64",
            "float16",
            "float32",
            "float64",
            "complex64",
        ]
    }
    inputs = {"pair": (columns["float32"], {"mask": columns["bool"]}), "alone": (columns["int8"],)}
    targets = (columns["uint16"], columns["complex64"], np.zeros((6, 0)), columns["float64"][:, 0])
    with StoreWriter(tmp_path / "s", 1) as writer:
        writer.append((inputs, targets))
    store = ExampleStore.open(tmp_path / "s")
    found_inputs, found_targets = store.gather(np.arange(6))
    assert isinstance(found_inputs["pair"], tuple) and isinstance(found_inputs["alone"], tuple)
    assert ExampleSpec.of((found_inputs, found_targets)) == ExampleSpec.of((inputs, targets))
    assert set(store.spec.fields) == {
        "inputs.alone.0", "inputs.pair.0", "inputs.pair.1.mask", *(f"targets.{n}" for n in range(4))
    }  # fmt: skip
    np.testing.assert_array_equal(found_inputs["pair"][1]["mask"], columns["bool"])
    np.testing.assert_array_equal(found_targets[1], columns["complex64"])


def test_spec_distinguishes_a_dict_from_a_tuple_with_equal_paths():
    array = np.zeros((2, 1))
    spec = ExampleSpec.of(({"0": array}, array))
    with pytest.raises(ExampleMismatchError, match=r"found \(\(array,\), array\)"):
        spec.flatten(((array,), array))


def test_big_endian_arrays_are_stored_little_endian(tmp_path):
    with StoreWriter(tmp_path / "s", 1) as writer:
        writer.append((np.arange(3, dtype=">f4"), np.arange(3, dtype=">i2")))
    inputs, targets = ExampleStore.open(tmp_path / "s").gather(np.array([2]))
    assert (inputs.dtype.str, targets.dtype.str, inputs[0], targets[0]) == ("<f4", "<i2", 2.0, 2)


def test_empty_store_consists_of_an_index_only(tmp_path):
    store = write(tmp_path / "s", block(0, 0))
    assert list(contents(tmp_path / "s")) == ["index.json"]
    assert (len(store), store.spec, store.nbytes) == (0, None, 0)
    with pytest.raises(IndexError):
        store.gather(np.array([], dtype=np.int64))


def test_store_bytes_do_not_depend_on_block_sizes(tmp_path):
    write(tmp_path / "a", block(0, 10))
    write(tmp_path / "b", block(0, 1), block(1, 6), block(7, 3))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_maps_are_read_only_and_gathered_arrays_are_copies(tmp_path):
    store = write(tmp_path / "s", block(0, 3))
    with pytest.raises(ValueError, match="read-only"):
        store._map(store.shards[0].file("inputs"))[0] = 1
    store.gather(np.array([0, 1]))[1][:] = 99
    store.column("targets")[:] = 99
    np.testing.assert_array_equal(store.column("targets"), [0, 1, 2])


def test_pickled_store_contains_only_its_folder_path(tmp_path):
    store = write(tmp_path / "s", block(0, 1000), rows_per_shard=1000)
    data = pickle.dumps(store)
    assert len(data) < 500
    assert len(pickle.loads(data)) == 1000


@pytest.mark.parametrize("rows", [[-1], [3], [0, 3]])
def test_gather_refuses_rows_outside_the_store(tmp_path, rows):
    with pytest.raises(IndexError, match="of a store of 3 examples"):
        write(tmp_path / "s", block(0, 3)).gather(np.array(rows))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            (np.zeros((1, 2, 3)), np.zeros(1, int)),
            r"inputs: found float64 \(2, 3\), expected uint8",
        ),
        ((np.zeros((1, 2, 4), np.uint8), np.zeros(1, int)), r"uint8 \(2, 4\).*uint8 \(2, 3\)"),
        (({"x": np.zeros((1, 2, 3))}, np.zeros(1)), r"found \(\{x: array\}, array\)"),
        ((np.zeros((1, 2, 3), np.uint8), np.zeros(2, int)), "targets: found 2 rows"),
    ],
)
def test_block_unlike_the_first_is_refused_and_leaves_no_index(tmp_path, second, message):
    with pytest.raises(ExampleMismatchError, match=message):
        write(tmp_path / "s", block(0, 5), second)
    assert not (tmp_path / "s" / "index.json").exists()


@pytest.mark.parametrize(
    "inputs",
    [{}, (), {"a.b": np.zeros(1)}, {"../x": np.zeros(1)}, {0: np.zeros(1)}, np.array(["a"]), 3.0],
)
def test_examples_with_unsupported_structure_are_refused(tmp_path, inputs):
    with pytest.raises(ExampleStructureError, match="inputs"):
        write(tmp_path / "s", (inputs, np.zeros(1)))


def test_store_is_not_written_into_a_non_empty_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError), StoreWriter(tmp_path, 1):
        pass


def test_missing_index_error_says_how_to_restore_the_store(tmp_path):
    with pytest.raises(DamagedStoreError, match=r"(?s)index\.json.*dvc checkout.*dvc pull"):
        ExampleStore.open(tmp_path)


def _edit(path: Path, **changes) -> None:
    index = json.loads((path / "index.json").read_text()) | changes
    (path / "index.json").write_text(json.dumps(index))


def _shard(**changes) -> list[dict]:
    return [{"name": "00001-00", "rows": 4, "live": 4} | changes]


INPUTS = "00001-00.inputs.npy"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / INPUTS).unlink(), f"{INPUTS}: cannot be read"),
        (lambda p: (p / INPUTS).write_bytes((p / INPUTS).read_bytes()[:-1]), "151 bytes"),
        (lambda p: (p / INPUTS).write_bytes(b"version https://git-lfs"), "not a plain NumPy array"),
        (
            lambda p: np.save(p / INPUTS, np.zeros((4, 2, 3))),
            r"float64.*expected uint8 \(4, 2, 3\)",
        ),
        (lambda p: np.save(p / INPUTS, np.zeros((3, 2, 3), np.uint8)), r"found uint8 \(3, 2, 3\)"),
        (lambda p: np.save(p / INPUTS, np.array([None] * 4)), "object"),
        (lambda p: (p / "index.json").write_text("{"), "not an index"),
        (lambda p: (p / "index.json").write_text("[]"), "not an index"),
        (lambda p: _edit(p, format=3), "(?s)found format 3.*pip install --upgrade"),
        (lambda p: _edit(p, shards=_shard(name="../00001-00")), "not a plain file name"),
        (lambda p: _edit(p, shards=_shard(name="/etc/passwd")), "not a plain file name"),
        (lambda p: _edit(p, shards=_shard() * 2), "listed twice"),
        (lambda p: _edit(p, shards=_shard(live=5)), "5 of 4 rows live"),
        (lambda p: _edit(p, shards=_shard(live=3)), "live.npy: cannot be read"),
        (lambda p: _edit(p, structure={"inputs": {"dict": {"../x": "array"}}}), "not an index"),
        (lambda p: _edit(p, fields={}), "not an index"),
    ],
)
def test_damaged_store_is_refused_on_opening(tmp_path, damage, message):
    write(tmp_path, block(0, 4))
    damage(tmp_path)
    with pytest.raises(DamagedStoreError, match=message):
        ExampleStore.open(tmp_path)


def test_memory_package_does_not_import_torch():
    code = "import sys, renate_stages.memory; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


SMALL_LIMIT = """
import resource, sys
from pathlib import Path
import numpy as np
from renate_stages.errors import TooManyMapsError
from renate_stages.memory import ExampleStore

hard = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
store = ExampleStore.open(Path(sys.argv[1]))
try:
    print(store.gather(np.arange(len(store)))[1].sum())
except TooManyMapsError as error:
    print(error)
"""


@pytest.mark.parametrize("hard", [1024, 64])
def test_store_with_many_shards_raises_the_open_file_limit_only_up_to_the_hard_limit(
    tmp_path, hard
):
    """Each map keeps its file open, so 32 GiB of shards exceeded the usual limit of 1,024 files."""
    write(tmp_path / "s", block(0, 400))
    done = subprocess.run(
        [sys.executable, "-c", SMALL_LIMIT, str(tmp_path / "s"), str(hard)],
        capture_output=True,
        text=True,
        check=True,
    )
    if hard == 1024:
        assert int(done.stdout) == sum(range(400))
    else:
        assert "cannot be mapped" in done.stdout and "ulimit -Hn" in done.stdout
