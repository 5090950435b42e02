"""One URL says where Redis is: a server, a socket or Sentinels, with or without TLS; wrong ones are refused in words."""

import pytest
from k2think.schemas.redis_place import RedisPlace, Tls, is_redis_url, parse_redis_url

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://h", RedisPlace(hosts=(("h", 6379),))),
        ("redis://:p%40ss@h:1/2", RedisPlace(hosts=(("h", 1),), db=2, password="p@ss")),
        ("REDIS://u:p#s@[::1]:7/0", RedisPlace(hosts=(("::1", 7),), username="u", password="p#s")),
        ("redis://h?db=3", RedisPlace(hosts=(("h", 6379),), db=3)),
        ("redis+socket:///run/r.sock", RedisPlace(socket="/run/r.sock")),
        (
            "redis+socket://u:p@/run/r.sock?virtual_host=4",
            RedisPlace(socket="/run/r.sock", db=4, username="u", password="p"),
        ),
        (
            "redis+sentinel://u:p@a,b:1,[::2]/main?db=5&sentinel_username=s&sentinel_password=t",
            RedisPlace(
                hosts=(("a", 26379), ("b", 1), ("::2", 26379)),
                master="main",
                db=5,
                username="u",
                password="p",
                sentinel_username="s",
                sentinel_password="t",
            ),
        ),
        ("rediss://h", RedisPlace(hosts=(("h", 6379),), tls=Tls())),
        (
            "rediss+sentinel://a/main?ssl_ca_certs=/ca&ssl_certfile=/c&ssl_keyfile=/k&ssl_check_hostname=false",
            RedisPlace(
                hosts=(("a", 26379),),
                master="main",
                tls=Tls(ca_file="/ca", cert_file="/c", key_file="/k", check_hostname=False),
            ),
        ),
        ("rediss://h?ssl_cert_reqs=none", RedisPlace(hosts=(("h", 6379),), tls=Tls(verified=False))),
    ],
)
def test_what_a_url_says(url: str, place: RedisPlace) -> None:
    assert is_redis_url(url)
    assert parse_redis_url(url) == place


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"amqp://u:{SECRET}@h", "must begin with redis://"),
        (f"redis://u:{SECRET}@a,b/0", "Sentinels are written redis+sentinel://"),
        (f"redis://u:{SECRET}@", "a host is missing"),
        (f"redis://u:{SECRET}@h:x/0", "a host is missing or its port is no number"),
        (f"redis://u:{SECRET}@h/main", "the database must be a number"),
        (f"redis://u:{SECRET}@h/0?ssl_ca_certs=/ca", "unknown option 'ssl_ca_certs'"),
        (f"redis://u:what?{SECRET}@h/0", "are user and password URL-encoded?"),
        (f"redis+sentinel://u:{SECRET}@a,b", "name the master after the Sentinels"),
        (f"redis+sentinel://u:{SECRET}@a,,b/main", "a host is missing"),
        (f"redis+sentinel://u:{SECRET}@a/main?ssl_ca_certs=/ca", "unknown option 'ssl_ca_certs'"),
        (f"redis+socket://u:{SECRET}@h/run/r.sock", "after three slashes"),
        (f"rediss://u:{SECRET}@h?ssl_cert_reqs=maybe", "ssl_cert_reqs must be required or none"),
        (f"rediss://u:{SECRET}@h?ssl_keyfile=/k", "ssl_keyfile needs ssl_certfile"),
    ],
)
def test_what_is_wrong_is_said_without_the_password(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_redis_url(url)
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_password_is_not_in_the_text_of_a_place() -> None:
    place = parse_redis_url(f"redis+sentinel://u:{SECRET}@a/main?sentinel_password={SECRET}")
    assert SECRET not in repr(place)
