"""The signature of a model version that takes raw rows."""

from __future__ import annotations

from dataclasses import asdict

from mlflow.types import Schema

from renate_stages.preprocessing import RawColumn
from renate_stages.tracking.registrar import _raw_specs


def test_each_name_of_a_column_is_in_the_signature_and_a_single_one_is_required():
    age, city = RawColumn("age", "number", True, ("years",)), RawColumn("city", "category", True)
    photo = RawColumn("photo", "image")
    schema = Schema(_raw_specs([asdict(each) for each in (age, city, photo)]))
    assert schema.input_names() == ["age", "years", "city", "photo"]
    assert schema.optional_input_names() == ["age", "years"]
    assert str(schema.input_dict()["photo"].type) == "DataType.binary"
