"""A sweep gives the function other settings for a while, and its own again whatever happens."""

import json

import pytest

from lambda_function.cloud import find_function, make_client
from lambda_function.stack.function_settings import arn_of, changed, restore, settings_now
from metrics.common.cli import UserError


@pytest.fixture
def function(embedded):
    return make_client(embedded, "lambda"), find_function(embedded)["FunctionName"]


def test_within_it_the_function_has_them_and_afterwards_its_own(function, tmp_path):
    saved = tmp_path / "saved.json"
    before = settings_now(*function)
    with changed(*function, 512, 3, saved):
        assert settings_now(*function) == {"memory_mb": 512, "concurrency": 3}
        assert json.loads(saved.read_bytes()) == {"function": arn_of(*function), **before}
    assert settings_now(*function) == before
    assert not saved.exists()


@pytest.mark.parametrize(("memory_mb", "concurrency"), [(640, None), (None, 2)])
def test_what_is_not_given_stays_as_it_was(function, tmp_path, memory_mb, concurrency):
    before = settings_now(*function)
    with changed(*function, memory_mb, concurrency, tmp_path / "saved.json"):
        now = settings_now(*function)
        assert now["memory_mb"] == (memory_mb or before["memory_mb"])
        assert now["concurrency"] == (concurrency or before["concurrency"])


def test_without_settings_nothing_is_asked(tmp_path):
    with changed(None, "nobody", None, None, tmp_path / "saved.json"):
        assert not (tmp_path / "saved.json").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError, OSError])
def test_it_is_restored_also_after_an_error(function, tmp_path, error):
    before = settings_now(*function)
    with pytest.raises(error), changed(*function, 512, 1, tmp_path / "saved.json"):
        raise error("in the middle of a run")
    assert settings_now(*function) == before


def test_after_a_kill_the_next_run_restores_it(function, tmp_path):
    saved = tmp_path / "saved.json"
    before = settings_now(*function)
    killed = changed(*function, 512, 1, saved)
    killed.__enter__()
    content = saved.read_bytes()
    killed.__exit__(None, None, None)
    function[0].update_function_configuration(FunctionName=function[1], MemorySize=512)
    saved.write_bytes(content)
    assert restore(*function, saved)
    assert settings_now(*function) == before
    assert not saved.exists()
    assert not restore(*function, saved)


def test_a_change_that_is_still_under_way_is_waited_for(function, tmp_path):
    """AWS refuses another one meanwhile, so that the function would not get back what it had."""
    client, name = function
    asked = []
    client.meta.events.register("before-call.lambda", lambda model, **_: asked.append(model.name))
    with changed(client, name, 512, None, None):
        asked.clear()
    before_update = asked[: asked.index("UpdateFunctionConfiguration")]
    assert "GetFunction" in before_update  # the waiter's


def test_what_another_function_had_is_not_given_to_this_one(function, tmp_path):
    saved = tmp_path / "saved.json"
    saved.write_text(json.dumps({"function": "other", "memory_mb": 512, "concurrency": None}))
    with pytest.raises(UserError, match=r"left function 'other' .* \(512 MB"):
        restore(*function, saved)
    assert saved.exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"function": 1, "memory_mb": "x"}'])
def test_a_damaged_file_is_named(function, tmp_path, content):
    saved = tmp_path / "saved.json"
    saved.write_text(content)
    with pytest.raises(UserError, match=r"saved\.json is damaged"):
        restore(*function, saved)
