"""Pipeline files: what a good one means, every fault of a bad one, and that credentials stay hidden."""

import json
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config import ConfigError, PipelineConfig, Sink, load, parse
from cluster.config.reference import reference

ROOT = Path(__file__).parents[3]

GOOD = """\
pipeline: demo
source:
  kinetica:
    url: http://127.0.0.1:9191
tables:
  - name: flights
sinks:
  events: {kronos: {url: "http://127.0.0.1:8151"}}
"""


def faults(text: str, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.yaml", env or {})
    assert str(caught.value).splitlines() == caught.value.faults
    return caught.value.faults


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_the_sinks_of_the_readme_are_good() -> None:
    readme = (ROOT / "README.md").read_text()
    table = readme[readme.index("## Sinks") : readme.index("## The embedded servers")]
    snippets = re.findall(r"\| `(\w+: \{.*\})` \|$", table, re.MULTILINE)
    kinds = set()
    for snippet in snippets:
        text = GOOD[: GOOD.index("sinks:")] + f"sinks:\n  {snippet}\n"
        config = parse(text, "f.yaml", {"PANOPLY_KEY": "acct/rand1", "PANOPLY_SECRET": "c2VjcmV0"})
        (sink,) = config.sinks.values()
        kinds |= sink.model_fields_set
    assert kinds == set(Sink.model_fields) - {"custom"}


def test_defaults() -> None:
    config = parse(GOOD, "/etc/tablecast/f.yaml", {})
    assert config.source.kinetica.url == ("http://127.0.0.1:9191",)
    assert config.source.kinetica.monitor_port is None
    assert config.source.kinetica.timeout == 10
    assert config.tables[0].events == ("insert", "update", "delete")
    assert config.sinks_of(config.tables[0]) == ("events",)
    kronos = config.sinks["events"].kronos
    assert kronos is not None
    assert (kronos.namespace, kronos.batch, kronos.timeout) == (None, 5000, 30)
    assert (config.decoders.min, config.decoders.max) == (1, 4)
    assert config.spool.path == Path("/etc/tablecast/spool")
    assert (config.spool.max_bytes, config.spool.min_free) == (10 * 2**30, 2**30)
    block = config.tuning.block
    assert (block.records, block.bytes, block.linger_ms) == (20_000, 2**20, 50)
    assert config.tuning.window_bytes == 16 * 2**20


def test_example_is_good(tmp_path: Path) -> None:
    example = ROOT / "examples" / "pipeline.yaml"
    config = load(example, {"KINETICA_USER": "anna"})
    assert config.source.kinetica.username == "anna"
    assert config.spool.path == ROOT / "examples" / "spool"
    assert [config.sinks_of(table) for table in config.tables] == [("events",), ("events",)]


@pytest.mark.parametrize(
    ("text", "size"),
    [("512MiB", 512 * 2**20), ("2 GB", 2 * 10**9), ("1.5KiB", 1536), ("3000kB", 3_000_000), ("7", 7)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse(GOOD + f"spool: {{min_free: {text}}}", "f", {}).spool.min_free == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("10min", 600), ("1.5h", 5400), ("30 s", 30), ("2d", 172_800), ("0", 0), ("90", 90)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse(GOOD + f"spool: {{retain: {text}}}", "f", {}).spool.retain == seconds


def test_a_duration_from_the_environment() -> None:
    text = GOOD + "spool: {retain: '${KEEP}', when_full: drop_oldest, new_sinks: newest}"
    spool = parse(text, "f", {"KEEP": "90"}).spool
    assert (spool.retain, spool.when_full, spool.new_sinks) == (90, "drop_oldest", "newest")


@pytest.mark.parametrize(
    ("written", "env", "value"),
    [
        ("${A}", {"A": "x"}, "x"),
        ("p-${A}-${B:-two}.", {"A": "one"}, "p-one-two."),
        ("${A:-b}", {"A": ""}, "b"),
        ("${A}", {"A": "${B}"}, "${B}"),
        ("$$${A}$${A}$", {"A": "x"}, "$x${A}$"),
        ("a$b", {}, "a$b"),
    ],
)
def test_variables(written: str, env: dict[str, str], value: str) -> None:
    config = parse(changed("    url:", f"    username: {written}\n    url:"), "f", env)
    assert config.source.kinetica.username == value


def test_what_may_follow_an_alteration() -> None:
    (table,) = parse(GOOD, "f.yaml", {}).tables
    assert (table.contract, table.ambiguous, table.increasing_column) == ("evolve", "reject", None)
    for key, values in {
        "contract": ["evolve", "freeze", "discard_columns"],
        "ambiguous": ["reject", "old", "new"],
        "increasing_column": ["id"],
    }.items():
        for value in values:
            text = changed("- name: flights", f"- {{name: flights, {key}: {value}}}")
            assert getattr(parse(text, "f.yaml", {}).tables[0], key) == value
        (fault,) = faults(changed("- name: flights", f"- {{name: flights, {key}: [1]}}"))
        assert f"tables[0].{key}" in fault


def test_a_number_may_come_from_the_environment() -> None:
    config = parse(changed("    url:", "    monitor_port: ${PORT}\n    url:"), "f", {"PORT": "9002"})
    assert config.source.kinetica.monitor_port == 9002


def test_aliases_and_merge_keys() -> None:
    text = changed('{kronos: {url: "http://127.0.0.1:8151"}}', "{kronos: &k {url: http://a, batch: 7}}")
    config = parse(text + "  more: {kronos: {<<: *k, batch: 8}}\n", "f", {})
    assert config.sinks["more"].kronos == config.sinks["events"].kronos.model_copy(update={"batch": 8})


FAULTS = [
    ("unknown key", GOOD + "decoder: {min: 1}", "9: decoder: unknown key; did you mean decoders?"),
    (
        "unknown key without a likely one",
        GOOD + "decoders: {size: 1}",
        "9: decoders.size: unknown key; known here: ",
    ),
    (
        "unknown key below a sink",
        changed('{url: "', '{uri: 1, url: "'),
        "8: sinks.events.kronos.uri: unknown key; did",
    ),
    ("unknown sink kind", changed("{kronos:", "{kafka:"), "8: sinks.events.kafka: unknown key"),
    ("number for text", changed("flights", "2024"), "6: tables[0].name: must be text, not a number; put"),
    ("YAML's no for text", changed("flights", "no"), "6: tables[0].name: must be text, not true or false"),
    (
        "date for text",
        changed("flights", "2024-01-01"),
        "6: tables[0].name: must be text, not a date or time",
    ),
    ("text for number", GOOD + "decoders: {max: '4'}", "9: decoders.max: must be a whole number, not text"),
    (
        "fraction for count",
        GOOD + "decoders: {max: 4.0}",
        "9: decoders.max: must be a whole number, not a fraction",
    ),
    ("boolean for count", GOOD + "decoders: {max: yes}", "9: decoders.max: must be a whole number, not true"),
    ("text for mapping", GOOD + "decoders: many", "9: decoders: must be a mapping, not text; write lines"),
    ("nothing for mapping", GOOD + "decoders:", "9: decoders: must be a mapping, not nothing"),
    (
        "mapping for list",
        changed("  - name: flights", "  name: flights"),
        "5: tables: must be a list, not a mapping",
    ),
    ("list for a file", "- a", "1: must be a mapping, not a list"),
    ("missing", changed("pipeline: demo\n", ""), "1: pipeline: required key is missing; add it"),
    (
        "missing below",
        changed("url: http://127.0.0.1:9191", "username: a"),
        "3: source.kinetica.url: required key",
    ),
    (
        "missing in an item",
        changed("name: flights", "sinks: [events]"),
        "6: tables[0].name: required key is missing",
    ),
    ("empty file", "# nothing\n", "1: the file is empty; start from examples/pipeline.yaml"),
    (
        "no tables",
        changed("\n  - name: flights", " []"),
        "5: tables: must not be empty; add at least one entry",
    ),
    (
        "no sinks for a table",
        changed("name: flights", "{name: a, sinks: []}"),
        "6: tables[0].sinks: must not be empty",
    ),
    (
        "duplicate key",
        GOOD + "decoders: {}\ndecoders: {}",
        "10: decoders: given twice, first on line 9; keep one",
    ),
    ("duplicate sink", GOOD + '  "events": {}', "9: sinks.events: given twice, first on line 8"),
    ("syntax", GOOD + "decoders: {min: 1", "9: YAML syntax: "),
    ("tab", GOOD + "\tx: 1", "9: YAML syntax: "),
    ("two documents", GOOD + "---\na: 1", "9: YAML syntax: "),
    ("forbidden character", GOOD + "\x07", "9: a character that YAML forbids"),
    (
        "alias of nothing",
        GOOD + "decoders: *d",
        "9: a value that begins with * is a YAML alias; put the value in",
    ),
    ("alias of itself", GOOD + "decoders: &d [*d]", "1: too large or too deep"),
    ("merge of itself", GOOD + "decoders: &d {<<: *d}", "1: merge keys (<<) without end"),
    ("merge of text", GOOD + "decoders: {<<: x}", "9: decoders: a merge key (<<) takes a mapping"),
    ("deep", "[" * 5000, "1: "),
    (
        "tag",
        GOOD + "decoders: !!python/object:os.system {}",
        "9: decoders: a YAML tag (!...) is not used here",
    ),
    ("bad escape", 'a: "\\UFFFFFFFF"', "1: an escape such as"),
    ("surrogate", changed("demo", '"\\uD800"'), "1: pipeline: half of a surrogate pair"),
    ("key that is not text", GOOD + "1: 2", "9: a key that is not text; put it in quotes"),
    ("bad date", changed("flights", "2024-99-99"), "6: tables[0].name: not a value that YAML can read"),
    (
        "missing variable",
        changed("flights", "${TABLE}"),
        "6: tables[0].name: environment variable TABLE is not set;",
    ),
    (
        "half a variable",
        changed("flights", "${TABLE"),
        "6: tables[0].name: ${ begins no variable; write ${NAME}",
    ),
    (
        "unknown sink",
        changed("name: flights", "{name: a, sinks: [event]}"),
        "6: tables[0].sinks[0]: there is no such",
    ),
    ("two tables", changed("flights", "a\n  - name: a"), "7: tables[1].name: the same table as tables[0]"),
    (
        "two feeds",
        changed("flights", "a\n  - name: a.updates"),
        "7: tables[1].name: also the updates feed of another",
    ),
    (
        "text for a flag",
        GOOD + "  lake: {parquet: {path: a, partition_by_date: 'yes'}}",
        "9: sinks.lake.parquet.partition_by_date: must be true or false, not text; write",
    ),
    (
        "a compression that is none",
        GOOD + "  lake: {parquet: {path: a, compression: zip}}",
        "9: sinks.lake.parquet.compression: must be 'zstd', 'snappy', 'gzip', 'lz4' or 'none'",
    ),
    ("no kind", GOOD + "  none: {}", "9: sinks.none: names no kind; write exactly one of kronos"),
    (
        "event",
        changed("name: flights", "{name: a, events: [added]}"),
        "6: tables[0].events[0]: must be 'insert', 'upd",
    ),
    (
        "event twice",
        changed("name: flights", "{name: a, events: [insert, insert]}"),
        "6: tables[0].events: the same",
    ),
    ("name with a slash", changed("demo", "a/b"), "1: pipeline: not a usable name; use"),
    ("name with a line end", changed("demo", '"demo\\n"'), "1: pipeline: not a usable name"),
    ("table name", changed("flights", "flüge"), "6: tables[0].name: not a usable name"),
    ("sink name", GOOD + "  a b: {kronos: {url: http://a}}", '9: sinks."a b": not a usable name'),
    (
        "URL scheme",
        changed("http://127.0.0.1:9191", "tcp://a:1"),
        "4: source.kinetica.url: not an http or https URL",
    ),
    (
        "URL without scheme",
        changed("http://127.0.0.1:9191", "localhost:9191"),
        "4: source.kinetica.url: not an http",
    ),
    ("URL port", changed("9191", "99999"), "4: source.kinetica.url: not a URL; write http://HOST:PORT"),
    ("URL query", changed("9191", "9191/?a=b"), "4: source.kinetica.url: a query or fragment"),
    (
        "URL space",
        changed("http://127.0.0.1:9191", "http://a b"),
        "4: source.kinetica.url: not an http or https URL",
    ),
    (
        "URL of a ring",
        changed("http://127.0.0.1:9191", "[http://a, x]"),
        "4: source.kinetica.url[1]: not an http or",
    ),
    (
        "URL with a password",
        changed("127.0.0.1:9191", "u:hush@a:9191"),
        "4: source.kinetica.url: credentials in a URL; use the keys",
    ),
    (
        "port",
        changed("    url:", "    monitor_port: 65536\n    url:"),
        "4: source.kinetica.monitor_port: must be at most",
    ),
    (
        "two logins",
        changed("    url:", "    username: a\n    token: b\n    url:"),
        "5: source.kinetica.token: given besi",
    ),
    (
        "no user",
        changed("    url:", "    password: b\n    url:"),
        "4: source.kinetica.password: given without username",
    ),
    (
        "no verification",
        changed("    url:", "    verify: false\n    url:"),
        "4: source.kinetica.verify: unknown key",
    ),
    ("negative", GOOD + "decoders: {min: -1}", "9: decoders.min: must be at least 1; raise it"),
    ("negative size", GOOD + "spool: {min_free: -1}", "9: spool.min_free: must be at least 0; raise it"),
    ("no time", changed('8151"', '8151", timeout: 0'), "8: sinks.events.kronos.timeout: must be more than 0"),
    ("infinite time", changed('8151"', '8151", timeout: .inf'), "8: sinks.events.kronos.timeout: must be"),
    ("size", GOOD + "spool: {max_bytes: 10 gigs}", "9: spool.max_bytes: not a size; write"),
    ("duration", GOOD + "spool: {retain: 10 minutes}", "9: spool.retain: not a duration; write"),
    ("number as text", GOOD + "spool: {retain: '90'}", "9: spool.retain: not a duration; write"),
    ("policy", GOOD + "spool: {when_full: block}", "9: spool.when_full: "),
    ("empty path", GOOD + "spool: {path: ''}", "9: spool.path: not a path"),
    (
        "min above max",
        GOOD + "decoders: {min: 3, max: 2}",
        "9: decoders.min: more than max, which is 2; lower",
    ),
    (
        "min above default max",
        GOOD + "decoders: {min: 9}",
        "9: decoders.min: more than max, which is 4; lower",
    ),
    (
        "no share",
        GOOD + "decoders: {scaling: {busy_above: 70}}",
        "9: decoders.scaling.busy_above: not a share; write a number between 0 and 1",
    ),
    (
        "thresholds too close",
        GOOD + "decoders: {scaling: {idle_below: 0.4}}",
        "9: decoders.scaling.idle_below: more than half of busy_above, which is 0.7: ",
    ),
    ("no CPUs", GOOD + "decoders: {cpus: 1.5}", "9: decoders.cpus: not a number of CPUs; write a fraction"),
    (
        "one file for two console sinks",
        GOOD + "  a: {console: {path: ./x/lines}}\n  b: {console: {path: x/lines}}",
        "10: sinks.b.console.path: also the file of the sink a; give each a file of its own",
    ),
    (
        "no form of V3IO",
        GOOD + "  v: {v3io: {url: 'http://h', container: c}}",
        "9: sinks.v.v3io: names no form; write exactly one of stream, kv, objects",
    ),
    (
        "two forms of V3IO",
        GOOD + "  v: {v3io: {url: 'http://h', container: c, kv: {path: a, key: k}, objects: {path: a}}}",
        "9: sinks.v.v3io: names kv and objects; write exactly one of stream, kv, objects",
    ),
    (
        "key and shard",
        GOOD + "  v: {v3io: {url: 'http://h', container: c, stream: {path: a, key: k, shard: s}}}",
        "9: sinks.v.v3io.stream.shard: given beside key; keep one of the two",
    ),
    (
        "path out of a container",
        GOOD + "  v: {v3io: {url: 'http://h', container: c, objects: {path: a/../b}}}",
        "9: sinks.v.v3io.objects.path: not a path in a container; write FOLDER/FOLDER",
    ),
    (
        "credentials in a place",
        GOOD + "  l: {parquet: {path: 's3://key:word@bucket/path'}}",
        "9: sinks.l.parquet.path: credentials in a URL; give them by the environment",
    ),
    (
        "no place",
        GOOD + "  l: {parquet: {path: 'ftp://bucket/path'}}",
        "9: sinks.l.parquet.path: not a URL of files; write one of s3, gs",
    ),
    (
        "no expression",
        changed("name: flights", "name: flights\n    transform: {where: 'id >'}"),
        "7: tables[0].transform: where: not a polars SQL expression: unable to parse",
    ),
    ("window", GOOD + "tuning: {window_bytes: 1000}", "9: tuning.window_bytes: less than tuning.block.bytes"),
]


@pytest.mark.parametrize(("text", "fault"), [case[1:] for case in FAULTS], ids=[case[0] for case in FAULTS])
def test_fault(text: str, fault: str) -> None:
    (found,) = faults(text)
    assert found.startswith("f.yaml:" + fault)
    assert "; " in found


def test_all_faults_at_once_in_the_order_of_lines() -> None:
    text = """\
pipelin: demo
source:
  kinetica: {url: nowhere, timeout: -1, password: "${SECRET}"}
tables:
  - {name: a, sinks: [events, lake]}
  - {name: a}
sinks:
  events: {}
decoders: {min: 5, max: 2, size: 3}
decoders: {}
"""
    assert [fault.split(": ")[0] + " " + fault.split(": ")[1] for fault in faults(text)] == [
        "f.yaml:1 pipelin",
        "f.yaml:1 pipeline",
        "f.yaml:3 source.kinetica.password",
        "f.yaml:3 source.kinetica.timeout",
        "f.yaml:3 source.kinetica.url",
        "f.yaml:5 tables[0].sinks[1]",
        "f.yaml:6 tables[1].name",
        "f.yaml:8 sinks.events",
        "f.yaml:9 decoders.min",
        "f.yaml:9 decoders.size",
        "f.yaml:10 decoders",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "password: *hush",
        "password: !hush x",
        "password: &hush",
        "password: [hush]",
        "password: {hush: hush}",
        "password: 'hush",
        "password: hush",
        "password: ${SECRET}",
        "password: hush\n    nonsense: 1",
        "url: http://hush:hush@a",
        "url: http://a:hush",
        "url: http://a/?token=hush",
        "monitor_port: ${SECRET}",
        "timeout: hush",
        "ca_file: [hush]",
    ],
)
def test_no_fault_shows_a_credential(line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(changed("    url: http://127.0.0.1:9191", f"    {line}"), "f.yaml", {"SECRET": "hush"})
    error: BaseException | None = caught.value
    assert "hush" not in repr(error) + str(error)
    assert error is not None
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


def test_credentials_show_only_in_the_dump() -> None:
    keys = "    username: anna\n    password: ${P}\n    url:"
    config = parse(changed("    url:", keys), "f.yaml", {"P": "hush"})
    assert "hush" not in repr(config) + str(config) + str(config.source) + config.model_dump_json()
    assert config.dump()["source"]["kinetica"]["password"] == "hush"
    assert config.source.kinetica.password.get_secret_value() == "hush"


def test_dump_is_json_and_comes_back_equal() -> None:
    config = load(ROOT / "examples" / "pipeline.yaml", {"KINETICA_USER": "anna", "KINETICA_PASSWORD": "x"})
    back = PipelineConfig.model_validate(json.loads(json.dumps(config.dump())))
    assert back == config
    assert back.digest == config.digest
    assert re.fullmatch("[0-9a-f]{64}", config.digest)


@pytest.mark.parametrize(
    ("old", "new"), [("demo", "demo2"), ("8151", "8152"), ("    url:", "    token: x\n    url:")]
)
def test_digest_tells_files_apart(old: str, new: str) -> None:
    assert parse(changed(old, new), "f", {}).digest != parse(GOOD, "f", {}).digest


def test_digest_ignores_how_a_file_is_written() -> None:
    spelled_out = "decoders: {max: 4, min: 1}\nspool: {path: ./x/../spool}\n" + GOOD
    assert parse(spelled_out, "f", {}).digest == parse(GOOD, "f", {}).digest


def test_models_agree_wherever_they_come_from() -> None:
    data = parse(GOOD, "f", {}).dump()
    data["tables"][0]["sinks"] = ["nowhere"]
    with pytest.raises(ValueError, match="there is no such sink"):
        PipelineConfig.model_validate(data)


def test_nothing_changes_after_loading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(GOOD, "f", {}).decoders.min = 2


def test_error_pickles() -> None:
    error = pickle.loads(pickle.dumps(ConfigError(["a", "b"])))
    assert error.faults == ["a", "b"]
    assert str(error) == "a\nb"


@pytest.mark.parametrize(
    ("content", "fault"), [(None, "cannot be read (No such"), (b"\xff\xfe", "not UTF-8 text")]
)
def test_unreadable_files(tmp_path: Path, content: bytes | None, fault: str) -> None:
    path = tmp_path / "f.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.faults[0].startswith(f"{path}:1: {fault}")


def test_a_byte_order_mark_is_fine(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("\ufeff" + GOOD, encoding="utf-8")
    assert load(tmp_path / "f.yaml", {}).spool.path == tmp_path / "spool"


def test_reference_is_current() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == reference(), "run: python -m cluster.config.reference > docs/configuration.md"


def check_parse(text: str) -> None:
    """Whatever `text` is, it is a pipeline or has at least one fault, each on one line and with advice."""
    try:
        parse(text, "f.yaml", {})
        return
    except ConfigError as error:
        found = error
    assert found.faults
    assert str(found).splitlines() == found.faults
    for fault in found.faults:
        assert re.match(r"f\.yaml:[1-9][0-9]*: .+; ", fault), fault


# Pieces of real files, so that what Hypothesis makes of them gets past the YAML reader.
PIECES = st.sampled_from(
    [
        *GOOD.split("\n"),
        *(case[1] for case in FAULTS if len(case[1]) < 1000),
        *"{}[]:,-&*!|>'\"%@#\n ~<$",
        *("!!int x", "!!bool x", "!!float ''", "!!timestamp x", "!!binary x", "!!set {a}", "!!omap []"),
        *("&a", "*a", "<<: *a", "? "),
    ]
)


@settings(deadline=None)
@given(st.one_of(st.text(st.characters()), st.lists(PIECES).map("".join), st.lists(PIECES).map("\n".join)))
def test_any_text_is_a_pipeline_or_a_config_error(text: str) -> None:
    check_parse(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.data())
def test_any_value_in_any_place_is_a_pipeline_or_a_config_error(data: st.DataObject) -> None:
    tree = parse(GOOD, "f.yaml", {}).dump()
    place = tree
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    check_parse(json.dumps(tree))


def test_a_custom_sink_survives_its_journey_and_is_not_shown() -> None:
    text = changed(
        "sinks:\n", "sinks:\n  mine: {custom: {class: 'a.b:C', options: {password: correct-horse, n: [1]}}}\n"
    )
    config = parse(text, "f.yaml", {})
    custom = PipelineConfig.model_validate(config.dump()).sinks["mine"].custom
    assert custom is not None
    assert (custom.class_, custom.options) == ("a.b:C", {"password": "correct-horse", "n": [1]})
    assert "correct-horse" not in repr(config)
    assert PipelineConfig.model_validate(config.dump()).digest == config.digest
    (fault,) = faults(text.replace("class:", "klass:"))[:1]
    assert "sinks.mine.custom" in fault
    assert any("did you mean class?" in fault for fault in faults(text.replace("class:", "klass:")))


def test_a_store_needs_one_way_to_log_in() -> None:
    text = changed("events: {kronos: {", "events: {kronos: {token: a, username: b, ")
    assert any("keep one of the two ways to log in" in fault for fault in faults(text))
