import pytest

from steersman.engine.images.reference import InvalidReference, is_digest, parse

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("nginx:1.7.9", "docker.io/library/nginx:1.7.9", "nginx:1.7.9"),
        ("library/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("mohr/hello", "docker.io/mohr/hello:latest", "mohr/hello:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("gcr.io/mohr-dev/hello-node:v1", "gcr.io/mohr-dev/hello-node:v1", "gcr.io/mohr-dev/hello-node:v1"),
        ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("registry.local:5000/x", "registry.local:5000/x:latest", "registry.local:5000/x:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
        ("Upper/x", "Upper/x:latest", "Upper/x:latest"),
        (f"nginx@sha256:{HEX}", f"docker.io/library/nginx@sha256:{HEX}", f"nginx@sha256:{HEX}"),
        (f"nginx:1@sha256:{HEX}", f"docker.io/library/nginx:1@sha256:{HEX}", f"nginx:1@sha256:{HEX}"),
    ],
)
def test_names_are_normalised_as_docker_does(text: str, full: str, familiar: str) -> None:
    reference = parse(text)
    assert str(reference) == full
    assert reference.familiar() == familiar
    assert parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "invalid reference format"),
        ("Alpine", "invalid reference format: repository name must be lowercase"),
        ("docker.io/Foo/bar", "invalid reference format: repository name must be lowercase"),
        ("nginx:", "invalid reference format"),
        ("nginx@", "invalid reference format"),
        ("nginx latest", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("../etc/passwd", "invalid reference format"),
        ("http://host/a", "invalid reference format"),
        ("nginx\n", "invalid reference format"),
        (f"nginx:{'t' * 129}", "invalid reference format"),
        (f"h.io/{'a' * 256}", "repository name must not be more than 255 characters"),
        (HEX, f"invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"),
        (f"nginx@sha256:{HEX[:40]}", "invalid checksum digest length"),
        (f"nginx@md5:{HEX[:32]}", "unsupported digest algorithm"),
    ],
)
def test_what_is_no_reference_is_refused_in_dockers_words(text: str, why: str) -> None:
    with pytest.raises(InvalidReference) as raised:
        parse(text)
    assert str(raised.value) == why


def test_only_lower_case_sha256_is_a_digest() -> None:
    assert is_digest(f"sha256:{HEX}")
    assert not is_digest(f"sha256:{HEX.upper()}")
    assert not is_digest(f"sha256:{HEX}\n")
    assert not is_digest("sha256:../../etc/passwd")
