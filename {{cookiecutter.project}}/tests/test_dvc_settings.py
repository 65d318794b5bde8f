"""What a repository may tell DVC: where data lies, and nothing that runs, reads or shows more."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.config_schema import REMOTE_SCHEMAS, SCHEMA

from slm.ci.plan import pull, push
from slm.dvc_cli import CONFIG_KEYS, REMOTE_KEYS, SETTINGS_ELSEWHERE, check_dvc_settings, dvc_status
from slm.errors import UserError

HONEST = {
    "s3": "url = s3://b/dvc\n    endpointurl = https://s3.example.org\n    region = r\n    profile = p",
    "azure": "url = azure://c/dvc\n    account_name = a\n    exclude_environment_credential = true",
    "gs": "url = gs://b/dvc\n    projectname = p",
    "ssh": "url = ssh://host/dvc\n    user = u\n    port = 22",
    "webdav": "url = webdavs://host/dvc\n    user = u\n    timeout = 30",
    "a folder": "url = ../elsewhere\n    type = hardlink",
}
PLANTED = [
    *("configpath", "credentialpath", "access_key_id", "secret_access_key", "session_token", "ssl_verify"),
    *("use_ssl", "acl", "grant_read", "keyfile", "password", "ask_password", "allow_agent", "gss_auth"),
    *("passphrase", "bearer_token_command", "custom_auth_header", "cert_path", "key_path", "token"),
    *("connection_string", "sas_token", "account_key", "client_secret", "gdrive_user_credentials_file"),
    *("gdrive_service_account_json_file_path", "proxy_to", "kerb_ticket", "oss_key_secret", "auth", "method"),
]
SECTIONS = {
    "core": "site_cache_dir = /tmp/x",
    "cache": "dir = /tmp/x",
    "hydra": "plugins_path = x",
    "plots": "html_template = x",
    "exp": "git_remote = x",
    "studio": "url = https://example.org",
    "'machine \"m\"'": "setup_script = x.sh",
    "'db \"d\"'": "url = x",
    "state": "dir = /tmp/x",
}


def names(schema: dict[Any, Any]) -> set[str]:
    return {str(key) for key in schema}


def repository(folder: Path, config: str, name: str = ".dvc/config", **files: str) -> None:
    for path, text in {name: config, **files}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    for words in (["init", "--quiet"], ["add", "--all", "--force"]):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GIT_DIR", raising=False)
    yield tmp_path


def test_the_lists_are_dvcs_own_names_and_each_other_name_is_refused(here: Path):
    known = set.union(*(names(schema) for scheme, schema in REMOTE_SCHEMAS.items() if scheme != "remote"))
    assert known >= REMOTE_KEYS and known - REMOTE_KEYS >= set(PLANTED)
    assert all(names(SCHEMA[section]) >= keys for section, keys in CONFIG_KEYS.items())
    for key in known - REMOTE_KEYS:
        repository(here, f"['remote \"storage\"']\n    url = s3://b/dvc\n    {key} = x\n")
        with pytest.raises(UserError, match=rf"^\.dvc/config: remote 'storage' sets '{key}'"):
            check_dvc_settings()


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.twin
def test_an_honest_remote_passes(name: str, here: Path):
    core = "[core]\n    analytics = false\n    check_update = false\n    remote = storage\n"
    repository(here, f"{core}['remote \"storage\"']\n    {HONEST[name]}\n", **{"task/a.dvc": DATA})
    check_dvc_settings()


@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.attack
def test_a_section_that_says_more_is_refused(name: str, here: Path):
    repository(here, f"[{name}]\n    {SECTIONS[name]}\n")
    with pytest.raises(UserError, match=r"^\.dvc/config: .* sets '"):
        check_dvc_settings()


@pytest.mark.attack
def test_a_key_written_in_another_way_is_refused(here: Path):
    """DVC's own reader says what a file holds: letters of any case, quotes, and sections that stand twice."""
    for text in (
        "['REMOTE \"s\"']\n    configpath = x\n",
        "['remote \"s\"']\n    CONFIGPATH = x\n",
        '[\'remote "s"\']\n    \'configpath\' = """x"""\n',
        "['remote \"s\"']\n    url = a\n['remote \"s\"']\n    configpath = x\n",
        "[remote]\n[[s]]\n    configpath = x\n",
        "configpath = x\n",
    ):
        repository(here, text)
        with pytest.raises(UserError, match=r"^\.dvc/config: "):
            check_dvc_settings()


@pytest.mark.attack
def test_local_settings_count_where_git_brings_them(here: Path):
    text = "['remote \"storage\"']\n    configpath = x\n"
    repository(here, "", **{".dvc/config.local": text})
    with pytest.raises(UserError, match=r"^\.dvc/config\.local: "):
        check_dvc_settings()
    subprocess.run(["git", "rm", "--quiet", "--cached", ".dvc/config.local"], check=True)
    check_dvc_settings()


DATA = (
    "outs:\n- md5: 0123456789abcdef0123456789abcdef\n  size: 1\n  hash: md5\n  path: a\nmeta: {repo: mine}\n"
)
BROUGHT = {
    "settings of an import": "deps:\n- path: s3://b/a\n  fs_config: {configpath: x}\nouts:\n- path: a\n",
    "another repository": "deps:\n- path: a\n  repo: {url: 'ext::sh -c x', config: {}}\nouts:\n- path: a\n",
    "a database": "deps:\n- db: {connection: x}\nouts:\n- path: a\n",
    "of a stage": "stages:\n  a:\n    cmd: x\n    outs:\n    - b: {fs_config: {configpath: x}}\n",
    "an anchor that holds itself": "x: &x [*x]\ndeps:\n- &y {path: a, more: [*x], fs_config: {}}\n",
}


@pytest.mark.parametrize("name", BROUGHT)
@pytest.mark.parametrize("path", ["a.dvc", ".dvc/a.dvc", "tests/dvc.yaml"])
@pytest.mark.attack
def test_a_data_file_that_brings_settings_is_refused(path: str, name: str, here: Path):
    repository(here, "", **{path: BROUGHT[name]})
    with pytest.raises(UserError, match=rf"^{path}: '(fs_config|repo|db)' lets DVC"):
        check_dvc_settings()


@pytest.mark.parametrize("name", SETTINGS_ELSEWHERE)
@pytest.mark.attack
def test_a_variable_that_names_a_tracked_file_is_refused(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch
):
    repository(here, "", **{"own/config": "x"})
    monkeypatch.setenv(name, str(here / "own"))
    with pytest.raises(UserError, match=rf"the variable {name} names .*, which Git tracks"):
        check_dvc_settings()
    # A login step of a workflow leaves its file in the checkout too, and Git does not track that.
    subprocess.run(["git", "rm", "-r", "--quiet", "--cached", "own"], check=True)
    check_dvc_settings()


@pytest.mark.parametrize("command", [pull, push])
@pytest.mark.attack
def test_nothing_runs_before_the_settings_are_checked(command: Callable[[], Any], here: Path):
    """A program that .dvc/config names, as an AWS configuration would: it is not started."""
    aws = f"[default]\ncredential_process = {sys.executable} -c \"open('ran', 'w')\"\n"
    config = "[core]\n    remote = s\n['remote \"s\"']\n    url = s3://b/dvc\n    configpath = ../aws\n"
    repository(here, config, aws=aws)
    with pytest.raises(UserError, match="sets 'configpath'"):
        command()
    assert not Path("ran").exists()


@pytest.mark.attack
def test_no_file_of_the_checkout_stands_before_a_library_of_dvc(here: Path):
    repository(here, "[core]\n    analytics = false\n", **{"dvc.yaml": "stages: {}\n"})
    for name in ("base64", "json", "ssl", "yaml", "dvc", "configobj"):
        Path(f"{name}.py").write_text(f"open('ran-{name}', 'w')\n", encoding="utf-8")
    assert dvc_status() == {}
    assert not list(here.glob("ran-*"))
    plain = [sys.executable, "-m", "dvc", "status"]
    subprocess.run(plain, cwd=here, capture_output=True, check=False)
    assert list(here.glob("ran-*")), "the planted modules do nothing, so this test shows nothing"
