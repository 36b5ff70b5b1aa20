"""The forecast's flags."""

import argparse

import pytest

from metrics.analysis.aws_profile import PUBLISHED, load_profile, profile_to_toml
from metrics.analysis.forecast_arguments import add_forecast_arguments, profile_of, settings_of
from metrics.analysis.forecast_inputs import Settings
from metrics.common.cli import UserError


def parsed(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_forecast_arguments(parser)
    return parser.parse_args(flags)


def test_without_flags_it_is_the_published_profile_and_pictures_in_s3():
    args = parsed()
    assert settings_of(args, 1769, "x86_64") == Settings()
    assert profile_of(args) == load_profile(PUBLISHED)


def test_flags_reach_the_settings(tmp_path):
    path = tmp_path / "own.toml"
    path.write_bytes(profile_to_toml(load_profile()))
    args = parsed("--uplink", "42.5", "--account-limit", "10", "--aws-profile-file", str(path))
    assert settings_of(args, 512, "arm64") == Settings(512, "arm64", 42.5, 10)
    assert profile_of(args) == load_profile()


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "fast", "1e99", ""])
def test_an_uplink_that_is_no_speed_is_wrong_usage(text, capsys):
    with pytest.raises(SystemExit) as error:
        parsed(f"--uplink={text}")
    assert error.value.code == 2
    assert "is not a number of Mbit/s above 0" in capsys.readouterr().err


def test_a_profile_that_is_not_there_is_one_line():
    with pytest.raises(UserError, match=r"nowhere\.toml"):
        profile_of(parsed("--aws-profile-file", "nowhere.toml"))
