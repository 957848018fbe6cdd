"""The published schema is that of the models, is a good one, and lets statuses with more keys pass."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError

from cluster.watch.status_schema import PipelineStatus, schema
from tests.cluster.statuses import pipeline

PUBLISHED = Path(__file__).parents[3] / "docs" / "status.schema.json"


def test_the_published_schema_is_current() -> None:
    published = json.loads(PUBLISHED.read_text())
    assert published == schema(), "run: python -m cluster.watch.status_schema > docs/status.schema.json"
    jsonschema.Draft202012Validator.check_schema(published)


def test_it_takes_a_status_and_refuses_what_is_none() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text()))
    status = pipeline()
    validator.validate(status)
    validator.validate(status | {"new": 1})
    for wrong in ({"tables": [{}]}, {"restarts": -1}, {"state": "fine"}, {"sinks": None}):
        assert not validator.is_valid(status | wrong)
    assert not validator.is_valid({key: value for key, value in status.items() if key != "tables"})


def test_the_models_know_every_key() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        PipelineStatus.model_validate(pipeline() | {"new": 1})
