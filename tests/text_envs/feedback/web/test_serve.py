"""Where the page may listen, and how it begins and ends: the real command in a process of its own."""

import http.client
import queue
import shutil
import socket
import ssl
import subprocess
from urllib.parse import urlencode, urlsplit

import pytest

from text_envs.__main__ import main
from text_envs.feedback.serve import Tls, _told, serve
from text_envs.feedback.settings import Settings

BEYOND = ["0.0.0.0", "::", "192.0.2.1"]


@pytest.fixture
def no_listening(monkeypatch):
    def refuse(*given, **named):
        raise AssertionError(f"it listens: {given}")

    monkeypatch.setattr(socket, "create_server", refuse)


@pytest.mark.parametrize("host", BEYOND)
def test_beyond_this_machine_it_does_not_listen_without_tls(store, people, no_listening, host):
    with pytest.raises(ValueError, match="unencrypted: give --tls-cert and --tls-key"):
        serve(store, Settings(), host)


@pytest.mark.parametrize("host", ["127.0.0.1", *BEYOND])
def test_it_does_not_listen_while_nobody_could_enter(store, certificate, no_listening, host):
    with pytest.raises(ValueError, match="nobody has an account"):
        serve(store, Settings(), host, tls=certificate)


def test_files_that_are_no_certificate_are_refused(store, people, tmp_path, no_listening, certificate):
    (tmp_path / "empty.pem").write_text("")
    for files in (
        Tls(tmp_path / "nothing.pem", tmp_path / "nothing.pem"),
        Tls(tmp_path / "empty.pem", tmp_path / "empty.pem"),
        Tls(certificate.certificate, certificate.certificate),
    ):
        with pytest.raises(ValueError, match="not PEM files of a certificate and its private key"):
            serve(store, Settings(tls=True), "0.0.0.0", tls=files)


def test_a_host_that_is_none_is_told(store, people):
    with pytest.raises(ValueError, match="no address of this machine"):
        serve(store, Settings(), "nowhere.invalid")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ValueError, match="in use.*--port"):
        serve(store, Settings(), port=taken.getsockname()[1])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"annotations_per_pair": 0}, "at least 1 annotator, got 0"),
        ({"lease_seconds": 0.0}, "lease_seconds is at least 1, got 0"),
        ({"session_seconds": float("nan")}, "session_seconds is at least 1, got nan"),
    ],
)
def test_settings_that_cannot_be(wrong, told):
    with pytest.raises(ValueError, match=told):
        Settings(**wrong)


@pytest.mark.parametrize("option", ["--tls-cert", "--tls-key"])
def test_certificate_and_key_go_together(database, option, capsys):
    assert main(["feedback", "serve", str(database.path), option, "file.pem"]) == 2
    assert "go together" in capsys.readouterr().err


def test_the_terminal_is_told_of_trouble_and_of_its_end(store, database, tmp_path, monkeypatch):
    monkeypatch.setattr("text_envs.feedback.serve._TOLD_EVERY", {False: 0.001})
    here, there = database.path, tmp_path / "away.db"
    lines = Lines()
    with _told(store, lines):
        lines.wait_for("0 of 0 pairs compared")
        here.rename(there)
        lines.wait_for("was moved, removed or replaced")
        there.rename(here)
        lines.wait_for("0 of 0 pairs compared")


class Lines(queue.Queue):
    """A terminal whose lines can be waited for."""

    write = queue.Queue.put

    def flush(self):
        pass

    def isatty(self):
        return False

    def wait_for(self, words):
        while words not in self.get(timeout=30):
            pass


@pytest.mark.slow
def test_it_serves_and_ends_cleanly_and_answers_are_kept(database, people, serving):
    with serving(database.path) as url:
        assert urlsplit(url).hostname == "127.0.0.1"
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        connection.request("GET", "/login", headers={"X-Forwarded-For": "10.0.0.1"})
        response = connection.getresponse()
        assert response.status == 200 and b"Log in" in response.read()
        assert response.getheader("server") is None


@pytest.mark.slow
def test_over_tls_it_listens_everywhere(database, people, serving, certificate):
    files = "--tls-cert", str(certificate.certificate), "--tls-key", str(certificate.private_key)
    with serving(database.path, "--host", "0.0.0.0", *files) as url:
        assert url.startswith("https://")
        host = f"localhost:{urlsplit(url).port}"
        trusting = ssl.create_default_context(cafile=certificate.certificate)
        connection = http.client.HTTPSConnection(host, context=trusting)
        headers = {"Origin": f"https://{host}", "Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/login", urlencode({"name": "ann", "password": "correct horse"}), headers)
        response = connection.getresponse()
        assert response.status == 303
        assert response.getheader("set-cookie").startswith("__Host-session=")
        plain = http.client.HTTPConnection("127.0.0.1", urlsplit(url).port)
        plain.request("GET", "/login")
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            plain.getresponse()


@pytest.fixture
def certificate(tmp_path):
    """For localhost, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on PATH, which makes the certificate")
    files = Tls(tmp_path / "certificate.pem", tmp_path / "key.pem")
    made = f"-keyout {files.private_key} -out {files.certificate} -nodes -days 2 -subj /CN=localhost"
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -addext subjectAltName=DNS:localhost"
    subprocess.run(f"{request} {made}".split(), check=True, capture_output=True)
    return files
