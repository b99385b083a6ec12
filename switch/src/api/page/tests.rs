use super::guard::Guard;
use super::*;
use axum::http::{HeaderMap, HeaderValue, Method};

fn refused(guard: Guard, method: &Method, path: &str, headers: &[(&'static str, &'static str)]) -> Option<u16> {
    let pairs = headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let mut map = HeaderMap::new();
    pairs.for_each(|(name, value)| _ = map.append(name, value));
    guard.refusal(method, path, &map).map(|(code, _)| code.as_u16())
}

#[test]
fn only_requests_that_name_this_machine_are_answered() {
    let near = Guard::new(SocketAddr::from(([127, 0, 0, 1], 80)), false);
    let far = Guard::new(SocketAddr::from(([0, 0, 0, 0], 80)), false);
    for (host, refused_near, refused_far) in [
        ("127.0.0.1:8484", None, None),
        ("localhost", None, None),
        ("LOCALHOST:80", None, None),
        ("[::1]:8484", None, None),
        ("192.0.2.1:80", Some(421), None),
        ("[2001:db8::1]", Some(421), None),
        ("evil.example:8484", Some(421), Some(421)),
        ("localhost.evil.example", Some(421), Some(421)),
        ("127.0.0.1.evil.example", Some(421), Some(421)),
        ("127.0.0.1:8484@evil.example", Some(421), Some(421)),
        ("[::1]evil", Some(421), Some(421)),
        ("", Some(421), Some(421)),
    ] {
        let code = |guard| refused(guard, &Method::GET, "/api/state", &[("host", host)]);
        assert_eq!((code(near), code(far)), (refused_near, refused_far), "{host}");
    }
    assert_eq!(refused(near, &Method::GET, "/", &[]), Some(421));
    assert_eq!(refused(near, &Method::GET, "/", &[("host", "localhost"), ("host", "localhost")]), Some(421));
}

#[test]
fn other_sites_and_methods_are_refused() {
    let guard = |writes| Guard::new(SocketAddr::from(([127, 0, 0, 1], 80)), writes);
    let host = ("host", "localhost:80");
    let get = |path, headers: &[_]| refused(guard(false), &Method::GET, path, &[&[host], headers].concat());
    assert_eq!(get("/api/state", &[("origin", "http://localhost:80")]), None);
    assert_eq!(get("/api/state", &[("origin", "http://evil.example")]), Some(403));
    assert_eq!(get("/api/state", &[("origin", "null")]), Some(403));
    assert_eq!(get("/api/state", &[("sec-fetch-site", "same-origin")]), None);
    assert_eq!(get("/api/state", &[("sec-fetch-site", "cross-site")]), Some(403));
    assert_eq!(get("/", &[("sec-fetch-site", "cross-site")]), None, "a link");
    for method in [Method::PUT, Method::DELETE, Method::OPTIONS, Method::POST] {
        assert_eq!(refused(guard(true), &method, "/api/state", &[host]), Some(405));
    }
    let change = [host, ("origin", "http://localhost:80"), ("content-type", "application/json")];
    let post = |writes, headers: &[_]| refused(guard(writes), &Method::POST, "/api/link", headers);
    assert_eq!((post(true, &change), post(false, &change)), (None, Some(403)));
    assert_eq!(post(true, &[host, change[2]]), Some(403), "a browser names its origin");
    assert_eq!(post(true, &[host, change[1], ("content-type", "text/plain")]), Some(415));
}

#[test]
fn a_page_is_for_this_machine_alone_unless_that_is_said() {
    let all = SocketAddr::from(([0, 0, 0, 0], 0));
    assert!(matches!(bind(all, false), Err(PageError::NotLoopback(at)) if at == all));
    assert!(bind(all, true).is_ok());
    assert!(bind(SocketAddr::from(([127, 0, 0, 1], 0)), false).is_ok());
}

#[test]
fn the_page_is_one_file_that_its_policy_describes() {
    // A second script or style, or one with attributes, would not be allowed to run.
    for tag in ["script", "style"] {
        assert_eq!((HTML.matches(&format!("<{tag}")).count(), HTML.matches(&format!("<{tag}>")).count()), (1, 1));
    }
    for outside in [" src=", "href=\"http", "@import", "url(", "innerHTML", "insertAdjacentHTML", "outerHTML", "eval("]
    {
        assert!(!HTML.contains(outside), "{outside}");
    }
    assert_eq!(policy().matches("'sha256-").count(), 2);
    assert!(HTML.len() < 200 * 1024);
}
