"""Files that the user's functions use: recorded when used, and refused if not declared."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest
from small_project import edit_config, edit_params

from renate_stages import errors, files, run_training_job
from renate_stages.actions.check import check_user_config
from renate_stages.files import yaml_file
from renate_stages.stages import prepare, restore_state, train, tune
from renate_stages.user.config import UserConfig
from renate_stages.user.declared_files import DeclaredFiles, hashes_of, is_passing
from renate_stages.user.file_watch import Watch

STAGES = ("prepare", "tune", "train", "export")
CONFIG = """
import json
import os
from pathlib import Path

HERE = Path(__file__).parent


def model_fn(model_state_url=None):
    {model}


def data_module_fn(data_path):
    {data}
"""


def quiet(message: str) -> None:
    pass


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def declare(project, *names: str, stages=STAGES) -> None:
    def change(content):
        for stage in stages:
            content["stages"][stage]["deps"].extend(names)

    yaml_file.edit(project.pipeline, change)


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Return a function that loads a renate_config.py from a folder with files, without a stage."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    root = tmp_path / "user"
    (root / "sub").mkdir(parents=True)
    (root / "vocab.txt").write_text("a b c")
    (root / "sub" / "table.json").write_text("{}")
    monkeypatch.chdir(root)

    def load(model: str = "pass", data: str = "pass") -> UserConfig:
        (root / "renate_config.py").write_text(CONFIG.format(model=model, data=data))
        return UserConfig.load(root / "renate_config.py")

    yield load
    sys.modules.pop("renate_config", None)


READERS = {
    "open": "open('vocab.txt').close()",
    "binary": "open(b'vocab.txt', 'rb').close()",
    "update": "open('vocab.txt', 'r+').close()",
    "path": "(HERE / 'vocab.txt').read_text()",
    "unnormalized path": "open(HERE / 'sub' / '..' / 'vocab.txt').close()",
    "os": "os.close(os.open('vocab.txt', os.O_RDONLY))",
    "library": "__import__('numpy').fromfile('vocab.txt', dtype='uint8')",
    "thread": "t = __import__('threading').Thread(target=open, args=['vocab.txt']); t.start(); t.join()",
    "changed folder": "os.chdir('sub'); open('../vocab.txt').close(); os.chdir('..')",
}


@pytest.mark.filterwarnings("ignore:unclosed file")
@pytest.mark.parametrize("reader", READERS)
def test_file_read_by_a_user_function_is_recorded(user, reader):
    config = user(READERS[reader])
    assert config.files.used.keys() == {"renate_config.py"}
    config.call("model_fn", {})
    assert config.files.used["vocab.txt"].sha256 == sha256("a b c")
    assert config.files.used["vocab.txt"].functions == {"model_fn"}


def test_sqlite_database_and_native_library_are_recorded(user, tmp_path):
    sqlite3.connect(tmp_path / "user" / "words.db").close()
    (tmp_path / "user" / "words.db").write_bytes(b"")
    (tmp_path / "user" / "kernel.so").write_bytes(b"no library")
    read = "__import__('sqlite3').connect('words.db').close()\n    try:\n"
    read += "        __import__('ctypes').CDLL('./kernel.so')\n    except OSError:\n        pass"
    config = user(read)
    config.call("model_fn", {})
    assert {"words.db", "kernel.so"} <= config.files.used.keys()


NOT_RECORDED = {
    "listed": "list(os.scandir('sub'))",
    "existence check": "(HERE / 'vocab.txt').exists()",
    "absent": "try:\n        open('absent')\n    except OSError:\n        pass",
    "written": "open('log.txt', 'w').close(); open('log.txt', 'a').close()",
    "written before reading": "Path('own.txt').write_text('1'); Path('own.txt').read_text()",
    "temporary file": "__import__('tempfile').NamedTemporaryFile(dir='.').close()",
    "environment file": "Path('.env').write_text(''); os.system('true'); open('.env').close()",
    "hidden folder": "open('.cache/tokens').close()",
    "package file": "open('env/lib/words').close(); open('pkg.egg-info/PKG').close()",
    "outside the project": "open(os.devnull).close()",
    "file descriptor": "os.close(os.dup(0)); open(os.open(os.devnull, 0)).close()",
}


@pytest.mark.parametrize("name", NOT_RECORDED)
def test_unread_temporary_and_external_files_are_not_recorded(user, tmp_path, name):
    for place in (".cache/tokens", "env/lib/words", "env/pyvenv.cfg", "pkg.egg-info/PKG"):
        (tmp_path / "user" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "user" / place).write_text("")
    config = user(NOT_RECORDED[name])
    config.call("model_fn", {})
    assert config.files.used.keys() == {"renate_config.py"}


def test_file_written_by_an_earlier_run_is_recorded(user, tmp_path):
    config = user("Path('cache').exists() or Path('cache').write_text('1'); open('cache').close()")
    config.call("model_fn", {})
    assert "cache" not in config.files.used
    later = user("Path('cache').exists() or Path('cache').write_text('1'); open('cache').close()")
    later.call("model_fn", {})
    assert "cache" in later.files.used


def test_symlinked_files_and_files_of_a_symlinked_project_are_recorded(tmp_path, user, monkeypatch):
    (tmp_path / "external.txt").write_text("x")
    config = user("open(HERE / 'linked.txt').close()")
    (tmp_path / "user" / "linked.txt").symlink_to(tmp_path / "external.txt")
    config.call("model_fn", {})
    assert config.files.used["linked.txt"].sha256 == sha256("x")

    (tmp_path / "other").symlink_to(tmp_path / "user", target_is_directory=True)
    other = UserConfig.load(tmp_path / "other" / "renate_config.py")
    monkeypatch.chdir(tmp_path / "other")
    with other.files.running("model_fn"):
        Path("vocab.txt").read_text()
        (tmp_path / "user" / "sub" / "table.json").read_text()
    assert {"vocab.txt", "sub/table.json"} <= other.files.used.keys()


def test_all_modules_that_user_code_imports_are_recorded(user, tmp_path):
    root = tmp_path / "user"
    for name, text in {
        "one.py": "import pack.inner\n",
        "pack/__init__.py": "",
        "pack/inner.py": "from . import sibling\nfrom .deep.far import X\n",
        "pack/sibling.py": "",
        "pack/deep/far.py": "X = 1\n",  # a namespace package
        "lazy.py": "import unnamed_one\n",
        "unnamed_one.py": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    names = ("one", "pack", "lazy", "unnamed_one")
    try:
        config = user("import lazy; __import__('importlib').import_module('one')")
        config.call("model_fn", {})
        modules = {
            *("lazy.py", "unnamed_one.py", "one.py", "pack/__init__.py", "pack/inner.py"),
            *("pack/sibling.py", "pack/deep/far.py"),
        }
        assert {n for n, use in config.files.used.items() if use.imported} - {
            "renate_config.py"
        } == modules

        # Modules that are already imported are recorded again for a config that imports them.
        again = user("pass", "pass")
        (root / "renate_config.py").write_text(
            "import lazy, one\n" + CONFIG.format(model="pass", data="pass")
        )
        again = UserConfig.load(root / "renate_config.py")
        assert modules <= again.files.used.keys()

        (root / "pack" / "sibling.py").write_text("# edited\n")
        with pytest.raises(errors.StaleImportError, match=r"pack/sibling\.py changed after"):
            UserConfig.load(root / "renate_config.py")
    finally:
        for name in [each for each in sys.modules if each.partition(".")[0] in names]:
            del sys.modules[name]


def test_modules_of_the_same_name_in_two_projects_are_separate(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    loaded = {}
    for name in ("one", "two", "one"):
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        (root / "namesake.py").write_text(f"NAME = '{name}'\n")
        text = "import namesake\n" + CONFIG.format(model="return namesake.NAME", data="pass")
        (root / "renate_config.py").write_text(text)
        loaded[name] = UserConfig.load(root / "renate_config.py")
        assert loaded[name].call("model_fn", {}) == name
        assert "namesake.py" in loaded[name].files.used
    assert loaded["two"].call("model_fn", {}) == "two"
    sys.modules.pop("namesake")


def test_record_has_the_hash_of_the_content_that_was_read(user, tmp_path):
    config = user("(HERE / 'vocab.txt').read_text()", "(HERE / 'sub' / 'table.json').read_text()")
    config.call("model_fn", {})
    config.call("data_module_fn", {}, data_path="")
    read = config.files.record()
    assert read["vocab.txt"] == sha256("a b c") and "sub/table.json" not in read
    assert config.files.changed() == [] and config.files.differing(read) == []

    (tmp_path / "user" / "vocab.txt").write_text("a b d")
    assert config.files.record() == read, "the record keeps the content that was read"
    assert config.files.changed() == ["vocab.txt"]
    assert config.files.differing({**read, "vocab.txt": sha256("a b d")}) == ["vocab.txt"]
    config.call("model_fn", {})  # reads the new content
    (tmp_path / "user" / "vocab.txt").write_text("a b c")
    assert config.files.changed() == ["vocab.txt"], "two calls read different contents"
    later = user("pass")
    assert later.files.differing(read) == ["renate_config.py"]


def test_file_read_by_a_forked_process_is_recorded_in_the_parent_process(user, tmp_path):
    config = user("pass")
    read = lambda: (tmp_path / "user" / "vocab.txt").read_text()
    config.functions["model_fn"] = read
    process = os.fork()
    if process == 0:
        try:
            config.call("model_fn", {})
        finally:
            os._exit(0)
    os.waitpid(process, 0)
    assert config.files.record()["vocab.txt"] == sha256("a b c")


def test_files_are_not_recorded_after_the_config_is_deleted(user):
    config = user("open('vocab.txt').close()")
    config.call("model_fn", {})
    used = config.files.used
    used.clear()
    function = config.functions["model_fn"]
    del config
    function()
    assert not used


@pytest.mark.parametrize(
    "name", [".git/config", "a/.cache/b", "x/__pycache__/y", "a.pyc", ".env.local", "mlflow.db-wal"]
)
def test_paths_of_tools_are_not_project_files(name):
    assert is_passing(name)


@pytest.mark.parametrize("name", ["vocab.txt", "env.py", "a/mlflow.db", ".vocab.txt", "pycache/x"])
def test_paths_that_resemble_those_of_tools_are_project_files(name):
    assert not is_passing(name)


# -- undeclared files ------------------------------------------------------------------------------


def expect_refusal(project, name: str, stages: list[str], run) -> str:
    """Expect an error that names the missing lines for an undeclared file; then declare it."""
    with pytest.raises(errors.UndeclaredUserFileError) as raised:
        run()
    refusal = str(raised.value)
    first, lines = refusal.split("\n", 2)[0], refusal.split("\n")[2:]
    assert name in first
    assert lines == [line for each in stages for line in (f"  {each}:", f"      - {name}")]
    declare(project, name, stages=stages)
    return first


@pytest.fixture
def with_file(project):
    (project.root / "scale.txt").write_text("16")
    return project


READ_SCALE = 'float((Path(__file__).parent / "scale.txt").read_text())'


def test_undeclared_file_read_on_import_is_refused_in_the_first_stage(with_file):
    edit_config(
        with_file, "class DigitsDataModule", f"SCALE = {READ_SCALE}\n\n\nclass DigitsDataModule"
    )
    refusal = expect_refusal(
        with_file, "scale.txt", [*STAGES], lambda: prepare.run(with_file, quiet)
    )
    assert refusal.startswith("renate_config.py reads scale.txt, ")
    prepare.run(with_file, quiet)


def test_file_read_by_the_data_module_is_required_in_prepare_only(with_file):
    edit_config(with_file, "        folder = Path", f"        {READ_SCALE}\n        folder = Path")
    refusal = expect_refusal(
        with_file, "scale.txt", ["prepare"], lambda: prepare.run(with_file, quiet)
    )
    assert "DigitsDataModule.setup (renate_config.py, line " in refusal
    prepare.run(with_file, quiet)
    restore_state.run(with_file, quiet)
    tune.run(with_file, quiet)
    train.run(with_file, quiet)


@pytest.mark.parametrize("workers", [0, 1])
def test_undeclared_file_read_by_a_dataset_item_is_refused_in_prepare(with_file, workers):
    edit_params(with_file, data__num_workers=workers)
    items = "[(images[i] * (1 if i else READ()), int(labels[i])) for i in range(99)]"
    lazy = "\n\nclass Lazily(list):\n    def __getitem__(self, i):\n"
    lazy += f"        {READ_SCALE} if i == 7 else 0\n        return super().__getitem__(i)\n"
    edit_config(
        with_file, "TensorDataset(images, labels)", f"Lazily({items})".replace("READ()", "1")
    )
    with_file.user_config.write_text(with_file.user_config.read_text() + lazy)
    with pytest.raises(errors.UndeclaredUserFileError, match=r"Lazily.__getitem__ \(renate_config"):
        prepare.run(with_file, quiet)
    assert not with_file.prepared.exists()


def prepared(project) -> None:
    for stage in (prepare, restore_state, tune):
        stage.run(project, quiet)


def test_undeclared_file_read_by_model_fn_is_refused_before_training(with_file):
    edit_config(
        with_file,
        "    if model_state_url is not None",
        f"    {READ_SCALE}\n    if model_state_url is not None",
    )
    prepared(with_file)
    needed = ["tune", "train", "export"]
    refusal = expect_refusal(with_file, "scale.txt", needed, lambda: train.run(with_file, quiet))
    assert refusal.startswith("model_fn (renate_config.py, line ")
    assert not with_file.state.exists()
    train.run(with_file, quiet)


@pytest.mark.parametrize("workers", [0, 1])
def test_undeclared_file_read_by_a_transform_is_refused_during_training(with_file, workers):
    edit_params(with_file, trainer__num_workers=workers)
    edit_config(
        with_file, "    return images.float() / 16", "    return images.float() / scale(images)"
    )
    lazily = f"\n\ndef scale(images):\n    return {READ_SCALE} if len(images) == 32 else 16\n"
    with_file.user_config.write_text(with_file.user_config.read_text() + lazily)
    prepared(with_file)
    with pytest.raises(
        errors.UndeclaredUserFileError, match=r"scale \(renate_config\.py, line \d+\)"
    ):
        train.run(with_file, quiet)
    assert not with_file.state.exists()


def test_undeclared_file_is_refused_even_if_user_code_catches_the_error(with_file):
    hidden = f"""
    try:
        {READ_SCALE}
    except Exception:
        pass
    return images.float() / 16"""
    edit_config(with_file, "\n    return images.float() / 16", hidden)
    prepared(with_file)
    with pytest.raises(errors.UndeclaredUserFileError, match=r"scale\.txt"):
        train.run(with_file, quiet)


def test_user_code_that_reads_params_yaml_is_refused(with_file):
    edit_config(
        with_file,
        "    if model_state_url is not None",
        '    open("params.yaml").close()\n    if model_state_url is not None',
    )
    prepared(with_file)
    with pytest.raises(errors.UndeclaredUserFileError, match=r"params\.yaml"):
        train.run(with_file, quiet)


def test_declared_folder_and_params_file_allow_their_contents(with_file):
    def change(content):
        content["stages"]["train"]["deps"].append("vocabulary/")
        content["stages"]["train"]["params"].append({"own.yaml": ["a", "b.c"]})

    yaml_file.edit(with_file.pipeline, change)
    declared = DeclaredFiles.read(with_file.root)
    assert declared is not None
    assert declared.allows("train", "vocabulary/a.txt") and declared.allows("train", "own.yaml")
    assert declared.allows("train", "state/state.json") and declared.allows(
        "prepare", "data/incoming/x"
    )
    assert not declared.allows("train", "vocabulary.txt")
    assert not declared.allows("train", "data/incoming/x") and not declared.allows(
        "tune", "own.yaml"
    )
    assert declared.is_product("work/prepared/x") and declared.is_product("data/incoming/y")
    assert not declared.is_product("data/other")


def test_check_reports_all_undeclared_files_at_once(with_file):
    (with_file.root / "vocab.txt").write_text("a")
    (with_file.root / "shapes.py").write_text("SIZE = 1\n")
    sys.modules.pop("shapes", None)
    edit_config(with_file, "import numpy as np", "import numpy as np\nimport shapes")
    edit_config(
        with_file, "    folder = Path", '    open("vocab.txt").close()\n        folder = Path'
    )
    edit_config(
        with_file, "    return images.float() / 16", f"    return images.float() / {READ_SCALE}"
    )
    with pytest.raises(errors.UndeclaredUserFileError) as raised:
        check_user_config(with_file.root, examples=16)
    assert str(raised.value).endswith(
        "add these lines to the `deps` of\n"
        "  prepare:\n      - shapes.py\n      - vocab.txt\n"
        "  tune:\n      - scale.txt\n      - shapes.py\n"
        "  train:\n      - scale.txt\n      - shapes.py\n"
        "  export:\n      - scale.txt\n      - shapes.py"
    )
    declare(with_file, "shapes.py", "scale.txt")
    declare(with_file, "vocab.txt", stages=["prepare"])
    check_user_config(with_file.root, examples=16)


def test_files_of_a_later_stage_are_not_recorded_for_an_earlier_stage(project):
    """Functions of `export` may still be referenced, and must not read data; `prepare` may."""
    earlier = UserConfig.of(project, "export")
    UserConfig.of(project, "prepare").data_module(project.incoming, {}, 0)
    assert "data/incoming/inputs.npy" not in earlier.files.used


def test_run_training_job_accepts_undeclared_files_and_hashes_them(with_file, tmp_path):
    edit_config(
        with_file, "class DigitsDataModule", f"SCALE = {READ_SCALE}\n\n\nclass DigitsDataModule"
    )
    digests = []
    for text in ("16", "16", "8"):
        (with_file.root / "scale.txt").write_text(text)
        target = tmp_path / f"state-{len(digests)}"
        run_training_job(
            {"hidden_size": 4},
            max_epochs=1,
            config_file=with_file.user_config,
            data_path=with_file.incoming,
            working_directory=tmp_path / "work",
            output_state_url=target,
        )
        digests.append(files.read_json(target / "state.json")["inputs"])
    assert digests[0] == digests[1] != digests[2]


def test_key_of_a_project_without_other_files_is_unchanged(project):
    """The digest stays as in earlier versions, so checkpoints, MLflow runs and states are found."""
    from renate_stages.state.inputs import Inputs

    inputs = Inputs({"data": "d"}, {"renate_config.py": "c"})
    assert inputs.key == files.digest({"data": "d", "user_config": "c"})
    assert Inputs({"data": "d"}, {"renate_config.py": "c", "a.py": "x"}).key != inputs.key


def test_file_that_is_read_repeatedly_is_hashed_once(user, tmp_path, monkeypatch):
    config, hashed = user("pass"), []

    def counted(wanted, known):
        hashed.extend(wanted)
        return hashes_of(wanted, known)

    monkeypatch.setattr("renate_stages.user.used_files.hashes_of", counted)
    with config.files.running("model_fn"):
        for _ in range(100):
            np.fromfile(tmp_path / "user" / "vocab.txt", dtype=np.uint8)
    assert hashed == ["vocab.txt"]


def test_watch_does_not_record_files_of_another_project(user, tmp_path):
    """This holds even if the calling code is in a project that was loaded before."""
    (tmp_path / "external").mkdir()
    earlier = Watch(Path(__file__).parent, tmp_path / "external")  # owns this test's code
    earlier.start()
    config = user("pass")
    with config.files.running("model_fn"):
        (tmp_path / "user" / "vocab.txt").read_text()
    earlier.stop()
    assert config.files.used["vocab.txt"].sha256 == sha256("a b c")
