from __future__ import annotations

from pathlib import Path

import grpc
import pytest
import trustme

from app.client.endpoint import Endpoint, Tls
from app.client.errors import EndpointError, UnavailableError
from app.client.templates import TemplateClient
from tests.client.fake_service import FakeService, details, giving, serving


@pytest.mark.parametrize(
    "target",
    [
        "localhost:50051",
        "127.0.0.1:1",
        "[::1]:65535",
        "templates.example:50051",
        "dns:///templates.example:50051",
        "dns:templates.example:50051",
        "dns://127.0.0.1:53/templates.example:50051",
        "ipv4:127.0.0.1:1,127.0.0.2:2",
        "ipv6:[::1]:1,[::1]:2",
        "unix:/tmp/socket",
        "unix:///tmp/socket",
    ],
)
def test_targets_in_grpcs_own_notation_are_taken(target: str) -> None:
    assert Endpoint(target).target == target


@pytest.mark.parametrize(
    "target",
    ["", "localhost", "localhost:", ":50051", "localhost:0", "localhost:65536", "localhost:http", "http://h:50051",
     "h:50051/path", "user@h:50051", "::1:50051:x", "dns:///h", "ipv4:127.0.0.1:1,127.0.0.2", "unix:", "a b:50051x"],
)  # fmt: skip
def test_a_malformed_target_is_refused_with_the_forms_that_would_do(target: str) -> None:
    with pytest.raises(EndpointError, match="the target must be HOST:PORT, dns:///HOST:PORT, "):
        Endpoint(target)


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("localhost:50051", True),
        ("127.9.9.9:50051", True),
        ("[::1]:50051", True),
        ("unix:/tmp/socket", True),
        ("dns:///localhost:50051", True),
        ("ipv4:127.0.0.1:1,127.0.0.2:1", True),
        ("ipv4:127.0.0.1:1,10.0.0.2:1", False),
        ("10.0.0.2:50051", False),
        ("app:50051", False),
        ("localhost.example:50051", False),
        ("dns://10.0.0.53/localhost:50051", False),  # that server may say that localhost is anywhere
    ],
)
def test_a_token_goes_in_the_clear_to_this_machine_only_unless_told_otherwise(target: str, local: bool) -> None:
    tls = Tls()
    assert Endpoint(target, tls, token="t").token == "t"
    assert Endpoint(target, token="t", token_in_clear=True).token == "t"
    if local:
        assert Endpoint(target, token="t").is_local
        return
    with pytest.raises(EndpointError, match="in the clear: use TLS"):
        Endpoint(target, token="t")


@pytest.mark.parametrize("token", ["", "two words", "line\n", "ünicode", "a,b"])
def test_a_token_that_no_header_can_carry_is_refused_without_being_told(token: str) -> None:
    with pytest.raises(EndpointError) as caught:
        Endpoint(token=token)
    assert not token or token not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    shown = repr(Endpoint(tls=Tls(b"CA", b"CERT", b"PRIVATE"), token="s3cret"))
    assert "s3cret" not in shown
    assert "PRIVATE" not in shown


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> dict[str, Path]:
    """An authority's certificate, a client's and its key, and files that are none."""
    client = authority.issue_cert("client@example.org")
    found = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key", "garbage", "empty", "locked")}
    authority.cert_pem.write_to_path(found["ca"])
    client.cert_chain_pems[0].write_to_path(found["cert"])
    client.private_key_pem.write_to_path(found["key"])
    found["garbage"].write_text("no PEM")
    found["empty"].touch()
    found["locked"].write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIICojAcBgoqhkiG9w0BDAEDMA4ECHh0\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    found["missing"] = tmp_path / "missing.pem"
    return found


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("missing", None, None), "cannot read .*missing.pem: No such file"),
        (("garbage", None, None), "garbage.pem holds no certificate of an authority"),
        (("empty", None, None), "empty.pem holds no certificate of an authority"),
        (("ca", "cert", "garbage"), "cert.pem and .*garbage.pem are no certificate and key"),
        (("ca", "cert", "locked"), "cert.pem and .*locked.pem are no certificate and key"),
        (("ca", "ca", "key"), "ca.pem and .*key.pem are no certificate and key in PEM: .*MISMATCH"),
        (("ca", "cert", None), "go together: only one"),
        ((None, None, "key"), "go together: only one"),
    ],
)
def test_files_that_are_not_what_they_should_be_are_named(
    files: dict[str, Path], names: tuple[str | None, ...], words: str
) -> None:
    with pytest.raises(EndpointError, match=words):
        Tls.from_files(*(None if name is None else files[name] for name in names))


@pytest.mark.parametrize("mutual", [False, True])
async def test_calls_go_over_tls_and_mtls_and_to_no_server_that_nobody_vouches_for(
    files: dict[str, Path], authority: trustme.CA, mutual: bool
) -> None:
    own = authority.issue_cert("localhost")
    pair = (own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())
    credentials = grpc.ssl_server_credentials([pair], authority.cert_pem.bytes() if mutual else None, mutual)
    known = Tls.from_files(files["ca"], files["cert"], files["key"]) if mutual else Tls.from_files(files["ca"])
    strangers = [Tls(trustme.CA().cert_pem.bytes()), None, *([Tls.from_files(files["ca"])] if mutual else [])]
    async with serving(FakeService(answers=[giving(details())]), credentials=credentials) as service:
        target = f"localhost:{service.port}"
        async with TemplateClient(Endpoint(target, known, token="t")) as client:
            await client.get(1)
        for stranger in strangers:
            async with TemplateClient(Endpoint(target, stranger), timeout_s=10) as client:
                with pytest.raises(UnavailableError):
                    await client.get(1)
    assert service.calls == 1
