"""What is sealed is what was asked: offers, findings and exam results that lie, and their honest twins."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slm.ci import seal as sealing
from slm.ci.plan import hold_cache
from slm.ci.recheck import answers_as_claimed, time_as_claimed
from slm.dvc_cli import _check_data_file
from slm.errors import UserError
from slm.files import sha256_file, unpack, write_json
from slm.verdict.exam import judge_gap
from slm.verdict.released import SEAL, SEALED, read_seal

COMMIT = "a" * 40
PARTS = ("p.tar.gz", "facts.tar.gz", "predictions.jsonl", "dvc.lock", "reference.tar.gz")
ROOM = {"n": 100} | dict.fromkeys(
    ("score", "score_low", "score_high", "valid_rate", "request_ms_p50", "rss_mb", "weights_mb"), 0.5
)
Edit = Callable[[Path], Any]


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An honest offer and its findings, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    for folder in (sealing.OFFERED, sealing.RECHECKED, sealing.EXAM_RESULT.parent):
        folder.mkdir()
    for name in PARTS:
        (sealing.OFFERED / name).write_text(f"bytes of {name}", encoding="utf-8")
    files = {name: sha256_file(sealing.OFFERED / name) for name in PARTS}
    offer = {"name": "p", "variant": "int4", "passed": True, "weights_sha256": "1" * 64}
    offer |= {"folder_sha256": "2" * 64, "reference": {"rung": "int8", "share": 0.8}, "files": files}
    write_json(sealing.OFFERED / sealing.MANIFEST, offer)
    (sealing.RECHECKED / "predictions.jsonl").write_text("heard\n", encoding="utf-8")
    findings = {"commit": COMMIT, "passed": True, "weights_sha256": "1" * 64, "folder_sha256": "2" * 64}
    findings |= {"offered": files, "figures": ROOM, "share": 0.81, "sandbox": "namespaces", "seconds": 60.0}
    findings |= {"predictions_sha256": sha256_file(sealing.RECHECKED / "predictions.jsonl")}
    findings["gates"] = [{"name": "score", "mark": "pass", "why": "0.7 of 0.6"}]
    write_json(sealing.RECHECKED / sealing.FINDINGS, findings)
    result = {"commit": COMMIT, "folder_sha256": "2" * 64, "passed": True, "why": "small gap"}
    write_json(sealing.EXAM_RESULT, result | {"score": 0.7, "n": 100, "public_score": 0.72})
    return tmp_path


def in_json(path: Path, **changes: Any) -> Edit:
    def edit(_: Path) -> None:
        value = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, value | changes)

    return edit


def in_bytes(path: Path, data: bytes = b"other") -> Edit:
    return lambda _: path.write_bytes(data)


def hashes_now() -> dict[str, str]:
    return {name: sha256_file(sealing.OFFERED / name) for name in PARTS}


OFFER, FOUND = sealing.OFFERED / sealing.MANIFEST, sealing.RECHECKED / sealing.FINDINGS
LIES: dict[str, tuple[Edit, str]] = {
    "package swapped after the recheck": (
        in_bytes(sealing.OFFERED / "p.tar.gz"),
        "is not the file that was offered",
    ),
    "facts swapped": (in_bytes(sealing.OFFERED / "facts.tar.gz"), "is not the file that was offered"),
    "lock swapped": (in_bytes(sealing.OFFERED / "dvc.lock"), "is not the file that was offered"),
    "a file beside": (in_bytes(sealing.OFFERED / "more.sh"), "was not offered"),
    "another seal, offered and named": (
        lambda f: (
            in_bytes(sealing.OFFERED / "notes", b'{"passed": true}')(f),
            in_json(OFFER, files=hashes_now() | {"notes": sha256_file(sealing.OFFERED / "notes")})(f),
        ),
        "notes is missing, or does not belong there",
    ),
    "passed, and a gate that failed": (
        in_json(FOUND, gates=[{"name": "score", "mark": "FAIL", "why": ""}]),
        "is not what its gates say",
    ),
    "an integer without end": (
        lambda _: FOUND.write_text(FOUND.read_text().replace('"seconds": 60.0', '"seconds": ' + "9" * 500)),
        "run the job that makes it again",
    ),
    "a file missing": (lambda _: (sealing.OFFERED / "dvc.lock").unlink(), "is missing"),
    "a link in place of a manifest": (
        lambda f: (OFFER.rename(f / "x"), OFFER.symlink_to(f / "x")),
        "no plain file",
    ),
    "swapped with its hash": (
        lambda f: (
            in_bytes(sealing.OFFERED / "p.tar.gz")(f),
            in_json(OFFER, files=hashes_now())(f),
        ),
        "files is not that of the offer",
    ),
    "other package": (in_json(OFFER, folder_sha256="3" * 64), "package is not that of the offer"),
    "other weights": (in_json(OFFER, weights_sha256="3" * 64), "weights is not that of the offer"),
    "other commit": (in_json(FOUND, commit="b" * 40), "commit is not that of the offer"),
    "other predictions": (
        in_bytes(sealing.RECHECKED / "predictions.jsonl"),
        "predictions is not that of the offer",
    ),
    "no findings": (lambda _: FOUND.unlink(), "no plain file"),
    "findings without a key": (
        lambda _: write_json(FOUND, {"commit": COMMIT}),
        "missing 9 required",
    ),
    "findings with a key beside": (in_json(FOUND, tag="v9"), "tag is unknown"),
    "passed as a word": (in_json(FOUND, passed="yes"), "passed has another form"),
    "a figure that is none": (
        in_json(FOUND, figures=ROOM | {"score": True}),
        "figures.score has another form",
    ),
    "a figure without end": (
        lambda _: FOUND.write_text(FOUND.read_text().replace("0.5", "1e999")),
        "has another form",
    ),
    "a path as a file": (
        in_json(FOUND, offered={"../../x": "1" * 64}),
        "files is not that of the offer",
    ),
    "a name that is a path": (in_json(OFFER, name="../p"), "is no plain name"),
    "deep JSON": (in_bytes(FOUND, b"[" * 100_000), "run the job that makes it again"),
    "huge JSON": (in_bytes(FOUND, b" " * (5 << 20)), "no plain file"),
    "exam of another package": (
        in_json(sealing.EXAM_RESULT, folder_sha256="3" * 64),
        "exam's package is not that of the offer",
    ),
    "exam of another commit": (in_json(sealing.EXAM_RESULT, commit="b" * 40), "exam's commit is not"),
    "no exam result": (lambda _: sealing.EXAM_RESULT.unlink(), "has no result of it"),
}


@pytest.mark.twin
def test_an_honest_offer_is_sealed_with_what_was_heard(offered: Path):
    content = sealing.seal_offer(COMMIT, exam=True)
    assert content["passed"] is True
    assert (SEALED / "predictions.jsonl").read_text(encoding="utf-8") == "heard\n"
    assert read_seal(SEALED) == content
    assert content["figures"] == ROOM and content["reference"] == {"rung": "int8", "share": 0.81}
    assert content["exam"] == {"score": 0.7, "n": 100, "public_score": 0.72}


@pytest.mark.attack
@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_not_sealed(name: str, offered: Path):
    edit, said = LIES[name]
    edit(offered)
    with pytest.raises(UserError, match=said):
        sealing.seal_offer(COMMIT, exam=True)
    assert not SEALED.exists()


@pytest.mark.attack
@pytest.mark.parametrize("path", [OFFER, FOUND, sealing.EXAM_RESULT], ids=["offer", "recheck", "exam"])
def test_one_refusal_of_three_refuses(path: Path, offered: Path):
    failed = [{"name": "score", "mark": "FAIL", "why": ""}]
    in_json(path, passed=False, **({"gates": failed} if path == FOUND else {}))(offered)
    assert sealing.seal_offer(COMMIT, exam=True)["passed"] is False


@pytest.mark.attack
def test_what_a_gate_is_called_stays_one_line_of_a_status(offered: Path):
    gates = [{"name": "a\n::add-mask::b\x1b[2J" * 9, "mark": "FAIL", "why": ""}]
    in_json(FOUND, passed=False, gates=gates)(offered)
    assert sealing.seal_offer(COMMIT, exam=True)["passed"] is False
    said = sealing.refused_by()
    assert said.isprintable() and len(said) <= 101


@pytest.mark.twin
def test_without_an_exam_no_result_is_needed(offered: Path):
    sealing.EXAM_RESULT.unlink()
    content = sealing.seal_offer(COMMIT, exam=False)
    assert content["passed"] is True and content["exam"] is None


def rows(answers: list[str]) -> list[dict[str, Any]]:
    return [{"id": str(i), "answer": a} for i, a in enumerate(answers)]


@pytest.mark.attack
def test_invented_predictions_are_found():
    honest = rows(["yes"] * 100)
    assert answers_as_claimed(honest, honest, 0.05).passed
    assert answers_as_claimed(rows(["no"] * 3 + ["yes"] * 97), honest, 0.05).passed
    assert not answers_as_claimed(rows(["no"] * 6 + ["yes"] * 94), honest, 0.05).passed
    assert not answers_as_claimed(honest[:90], honest, 0.05).passed
    assert not answers_as_claimed(
        [*honest, *({"id": f"x{i}", "answer": "yes"} for i in range(9))], honest, 0.05
    ).passed


@pytest.mark.attack
def test_an_invented_time_is_found():
    assert time_as_claimed(0.8, 0.9).passed
    assert not time_as_claimed(0.3, 0.9).passed
    assert not time_as_claimed(0.3, float("nan")).passed
    assert time_as_claimed(None, None).passed is None


@pytest.mark.attack
@pytest.mark.parametrize(
    ("public", "exam", "small"),
    [
        ([1.0] * 850, [0.0] * 100, False),  # a lookup table of the public test set
        ([1.0] * 850, [0.75] * 100, False),
        ([1.0] * 640 + [0.0] * 210, [1.0] * 70 + [0.0] * 30, True),
        ([1.0] * 640 + [0.0] * 210, [1.0] * 80 + [0.0] * 20, True),  # better in the exam
        ([1.0] * 50, [1.0] * 50, True),
    ],
)
def test_a_model_that_memorised_the_test_set_shows_in_the_gap(
    public: list[float], exam: list[float], small: bool
):
    assert judge_gap(public, exam, 0.1)[1] is small


def tarball(path: Path, *members: tuple[str, bytes, bytes]) -> Path:
    """Members: name, type of tarfile, content (of a link: where it leads)."""
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content.decode()
                tar.addfile(info)
    return path


ARCHIVES = {
    "a link": (("p/x", tarfile.SYMTYPE, b"/etc/passwd"), "neither file nor folder"),
    "a hard link": (("p/x", tarfile.LNKTYPE, b"../../x"), "neither file nor folder"),
    "a device": (("p/x", tarfile.CHRTYPE, b""), "neither file nor folder"),
    "a pipe": (("p/x", tarfile.FIFOTYPE, b""), "neither file nor folder"),
    "a way out": (("../x", tarfile.REGTYPE, b"x"), "cannot be unpacked"),
    "too much": (("p/x", tarfile.REGTYPE, b"0" * 3_000_000), "more than 2 MB"),
}


@pytest.mark.attack
@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_is_more_than_files_is_refused(name: str, tmp_path: Path):
    member, said = ARCHIVES[name]
    with pytest.raises(UserError, match=said):
        unpack(tarball(tmp_path / "a.tar.gz", member), tmp_path / "out", 2)
    assert not (tmp_path / "x").exists()


@pytest.mark.attack
def test_many_entries_and_half_an_archive_are_refused(tmp_path: Path):
    many = tarball(tmp_path / "many.tar.gz", *((f"p/{i}", tarfile.REGTYPE, b"") for i in range(10_001)))
    with pytest.raises(UserError, match="10000 entries"):
        unpack(many, tmp_path / "out", 2)
    half = tmp_path / "half.tar.gz"
    half.write_bytes(many.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(half, tmp_path / "out", 2)


@pytest.mark.twin
def test_an_honest_archive_comes_out_whole(tmp_path: Path):
    unpack(tarball(tmp_path / "a.tar.gz", ("p/x", tarfile.REGTYPE, b"x")), tmp_path / "out", 2)
    assert (tmp_path / "out" / "p" / "x").read_bytes() == b"x"


def test_the_seal_is_named_by_its_whole_hash(offered: Path):
    sealing.seal_offer(COMMIT, exam=True)
    assert len(sha256_file(SEALED / SEAL)) == 64


def test_a_file_of_the_cache_is_what_its_name_says(tmp_path: Path):
    good = tmp_path / "90" / "0150983cd24fb0d6963f7d28e17f72"  # MD5 of "abc"
    good.parent.mkdir()
    good.write_bytes(b"abc")
    hold_cache(tmp_path)
    good.write_bytes(b"abd")
    with pytest.raises(UserError, match="holds other bytes than its name says"):
        hold_cache(tmp_path)


@pytest.mark.parametrize(
    "name", ["../.venv/x.pth", "../slm/x.py", "/tmp/x", "link/x", "../../x", "../.github/x"]
)
def test_a_data_file_writes_into_the_folders_of_data_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for folder in ("task", ".venv"):
        Path(folder).mkdir()
    Path("task/link").symlink_to("../.venv")
    path = Path("task/x.dvc")
    path.write_text("outs:\n- path: x\n  md5: a\n", encoding="utf-8")
    _check_data_file(path)
    path.write_text(f"outs:\n- path: {name}\n  md5: a\n", encoding="utf-8")
    with pytest.raises(UserError, match="is not inside one of task"):
        _check_data_file(path)
