"""The profile of AWS facts: what is in it, and that a wrong one is named by file and key."""

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.analysis.aws_profile import (
    OPTIONAL_UNITS,
    PUBLISHED,
    UNITS,
    Fact,
    Profile,
    load_profile,
    profile_to_toml,
)
from metrics.common.cli import UserError

PROFILE = load_profile()
TEXT = PUBLISHED.read_text()


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "own.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_every_fact_has_a_source_a_date_and_a_region():
    assert set(PROFILE.facts) == set(UNITS)
    for name, fact in PROFILE.facts.items():
        assert fact.source, name
        assert re.match(r"20\d\d", fact.date), name
        assert fact.region, name


def test_prices_stand_in_the_price_table_alone():
    assert not re.search(r"usd|dollar|price", TEXT.partition("[about]")[2], re.IGNORECASE)


def test_derived_numbers_follow_from_the_published_ones():
    """As the notes beside them say."""
    assert PROFILE["kernel_ms_x86_64"] == pytest.approx(46.1 * 25.5 / 28.2, abs=0.05)
    assert PROFILE["kernel_ms_arm64"] == pytest.approx(41.7 * 0.933, abs=0.05)
    assert PROFILE["kernel_picture_factor"] == pytest.approx(30.35 / 31.36, abs=0.001)
    assert PROFILE["init_ms_x86_64"] == pytest.approx(595 * 489 / 473, abs=0.5)
    assert PROFILE["init_ms_arm64"] == pytest.approx(615 * 0.857, abs=0.5)
    assert PROFILE["init_warm_up_kernels"] == pytest.approx(53.6 / 30.6, abs=0.01)
    assert PROFILE["store_ms_per_mb"] == pytest.approx((228 - 39.6) / 7.03, abs=0.05)
    assert PROFILE["fetch_ms_per_mb"] == pytest.approx(1000 / 90, abs=0.05)
    assert PROFILE["fetch_net_ms"] == pytest.approx(36.8 - 2.19 * 11.1, abs=0.05)
    events = [math.log(ms) for ms in (1345, 1300, 750)]
    mean = sum(events) / 3
    assert PROFILE["event_ms"] == pytest.approx(math.exp(mean), rel=0.005)
    spread = math.sqrt(sum((one - mean) ** 2 for one in events) / 2)
    assert PROFILE.facts["event_ms"].log_sd == pytest.approx(spread, abs=0.001)
    # 405 and 66 ms at 128 MB (13.82 times the processor) and at 2,048 MB.
    net, cpu = PROFILE["first_call_net_ms"], PROFILE["first_call_cpu_ms"]
    assert net + cpu * 1769 / 128 == pytest.approx(405, rel=0.01)
    assert net + cpu == pytest.approx(66, rel=0.02)


def test_a_new_function_is_known_by_a_factor_of_2_for_jpeg_and_more_for_other_formats():
    """scipy's t(0.975; 4) is 2.776."""
    jpeg, other = (PROFILE.facts[f"local_step_{kind}"] for kind in ("jpeg", "other"))
    assert jpeg.log_sd == pytest.approx(math.sqrt(0.11**2 * 1.2 + 0.23**2), abs=0.001)
    assert math.exp(2.776 * jpeg.log_sd) == pytest.approx(2.06, abs=0.01)
    assert math.exp(2.776 * other.log_sd) == pytest.approx(2.4, abs=0.01)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("value = 1769", "value = 0", "facts.full_vcpu_mb.value: 0"),
        ("value = 1769", "value = -5", "facts.full_vcpu_mb.value: -5"),
        ("value = 1769", "value = nan", "facts.full_vcpu_mb.value: nan"),
        ("value = 1769", "value = inf", "facts.full_vcpu_mb.value: inf"),
        ("value = 1769", 'value = "1769"', "facts.full_vcpu_mb.value: '1769'"),
        ("value = 1769", "value = true", "facts.full_vcpu_mb.value: True"),
        ("value = 1769\n", "", "facts.full_vcpu_mb.value: missing"),
        ("value = 1769", "value = 1769\nvalu = 3", "facts.full_vcpu_mb.valu: no key"),
        ('unit = "MB"', 'unit = "GB"', "facts.full_vcpu_mb.unit: 'GB'"),
        ("log_sd = 0.26", "log_sd = -0.26", "facts.local_step_jpeg.log_sd: -0.26"),
        ("log_sd = 0.26", "log_sd = 26", "facts.local_step_jpeg.log_sd: 26"),
        ("degrees_of_freedom = 7", "degrees_of_freedom = 0", "kernel_ms_arm64.degrees_of_freedom"),
        ("n = 248", "n = 248.5", "facts.kernel_ms_x86_64.n: 248.5"),
        ("[facts.event_ms]", "[facts.event]", "facts.event_ms: missing"),
        ("[facts.event_ms]", "[facts.other]\nvalue = 1\n[facts.event_ms]", "facts.other: no key"),
        ("format = 1", "format = 2", "about.format: 2"),
        ('state = "published"', 'state = "guessed"', "about.state: 'guessed'"),
        ("memory_mb = [128, 3008]", "memory_mb = [3008, 128]", "about.memory_mb: [3008, 128]"),
        ("memory_mb = [128, 3008]", "memory_mb = 128", "about.memory_mb: 128"),
        ("memory_mb = [128, 3008]", 'memory_mb = ["a", 1]', "about.memory_mb: ['a', 1]"),
        ("[about]", "[aboot]", "about: missing"),
    ],
)
def test_a_wrong_profile_is_named_by_file_and_key_in_one_line(tmp_path, old, new, key):
    assert old in TEXT
    with pytest.raises(UserError) as error:
        load_profile(written(tmp_path, TEXT.replace(old, new, 1)))
    message = str(error.value)
    assert "own.toml" in message
    assert key in message
    assert "\n" not in message


@pytest.mark.parametrize("content", ["[about", b"\xff\xfe", "about = 1", "facts = 3\n[about]", ""])
def test_what_is_no_profile_at_all_is_one_line(tmp_path, content):
    with pytest.raises(UserError) as error:
        load_profile(written(tmp_path, content))
    assert "own.toml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_profile_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.toml: No such file"):
        load_profile(tmp_path / "none.toml")


numbers = st.floats(1e-6, 1e6)
texts = st.text().filter(str.strip)


@given(numbers, st.floats(0, 5), st.floats(1, 1e6) | st.just(math.inf), texts, st.text())
def test_what_is_written_is_read_as_the_same_profile(
    tmp_path_factory, value, log_sd, degrees, source, note
):
    fact = Fact(value, "ratio", log_sd, 3, "2026", "here", source, note, degrees_of_freedom=degrees)
    facts = PROFILE.facts | {"uplink": fact, next(iter(OPTIONAL_UNITS)): fact}
    profile = Profile(PROFILE.about, facts)
    path = written(tmp_path_factory.mktemp("p"), profile_to_toml(profile))
    assert load_profile(path) == profile
