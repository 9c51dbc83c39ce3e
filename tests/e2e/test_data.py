"""Where the four hospitals' data comes from, and what happens when it is not what it should be."""

import dataclasses
import hashlib
import http.server
import threading

import pytest

import data

CONTENT = {h.file: "".join(f"{50 + i},1,4,140,{200 + i},0,1,112,1,3,2,?,?,{i % 3}\n" for i in range(20)).encode() + h.file.encode() + b"\n"
           for h in data.HOSPITALS}


@pytest.fixture
def hospitals(monkeypatch):
    """The same four files with generated content, so that no data from elsewhere is needed."""
    monkeypatch.setattr(data, "HOSPITALS", [dataclasses.replace(h, sha256=hashlib.sha256(CONTENT[h.file]).hexdigest()) for h in data.HOSPITALS])


@pytest.fixture
def archive():
    """A server of the archive's shape on loopback. `answers` says what it gives; line ends are CRLF, as some mirrors have them."""
    answers = {f"/{name}": content.replace(b"\n", b"\r\n") for name, content in CONTENT.items()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = answers.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.answers = answers
    server.address = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()


def elsewhere(tmp_path):
    return {"root": tmp_path / "nowhere" / "checkout", "environment": {}}


def test_the_downloader_normalises_line_ends_and_checks_the_sums(hospitals, archive, tmp_path):
    cohort = data.find(tmp_path / "cache", archive.address, **elsewhere(tmp_path))
    assert not cohort.synthetic and "downloaded" in cohort.source
    for h in data.HOSPITALS:
        assert cohort.files[h.owner].read_bytes() == CONTENT[h.file]


def test_a_second_study_uses_the_first_download(hospitals, archive, tmp_path):
    data.find(tmp_path / "cache", archive.address, **elsewhere(tmp_path))
    archive.answers.clear()
    assert "earlier" in data.find(tmp_path / "cache", archive.address, **elsewhere(tmp_path)).source


def test_a_changed_file_is_refused_by_name_and_leaves_nothing_behind(hospitals, archive, tmp_path):
    name = data.HOSPITALS[2].file
    archive.answers["/" + name] = CONTENT[name].replace(b"140", b"141", 1)
    with pytest.raises(data.DataError, match=f"{name}: wanted SHA-256 .* found"):
        data.find(tmp_path / "cache", archive.address, **elsewhere(tmp_path))
    assert not (tmp_path / "cache" / "uci" / name).exists()


def test_without_a_network_a_synthetic_cohort_says_that_it_is_one(tmp_path):
    cohort = data.find(tmp_path / "cache", "http://127.0.0.1:9/closed", **elsewhere(tmp_path))
    assert cohort.synthetic and cohort.source.startswith("SYNTHETIC")
    for h in data.HOSPITALS:
        rows = [line.split(",") for line in cohort.files[h.owner].read_text().splitlines()]
        assert len(rows) == data.SHAPE[h.owner][0] and all(len(r) == len(data.COLUMNS) for r in rows)
        assert sum(r[-1] != "0" for r in rows) == data.SHAPE[h.owner][1]
    assert all(r.split(",")[4] == "?" for r in cohort.files["zurich"].read_text().splitlines())


def test_a_missing_file_on_the_server_falls_back_and_says_why(hospitals, archive, tmp_path):
    archive.answers.pop("/" + data.HOSPITALS[0].file)
    cohort = data.find(tmp_path / "cache", archive.address, **elsewhere(tmp_path))
    assert cohort.synthetic and "Not Found" in cohort.source


def test_a_folder_named_by_the_user_is_never_replaced_by_another_source(hospitals, tmp_path):
    with pytest.raises(data.DataError, match="CLOISTER_DATA"):
        data.find(tmp_path / "cache", root=tmp_path, environment={"CLOISTER_DATA": str(tmp_path)})
    for h in data.HOSPITALS:
        (tmp_path / h.file).write_bytes(CONTENT[h.file])
    assert str(tmp_path) in data.find(tmp_path / "cache", root=tmp_path, environment={"CLOISTER_DATA": str(tmp_path)}).source


def test_the_real_files_have_the_documented_counts():
    cohort = data.in_folder(data.pathlib.Path(data.os.environ.get("CLOISTER_SHARED", data.pathlib.Path(__file__).resolve().parents[3] / "shared")) / "data" / "heart-disease")
    if cohort is None:
        pytest.skip("skipped, data not found")
    for h in data.HOSPITALS:
        rows = cohort[h.owner].read_text().splitlines()
        assert len(rows) == data.SHAPE[h.owner][0]
        assert sum(float(r.split(",")[-1]) > 0 for r in rows) == data.SHAPE[h.owner][1]
