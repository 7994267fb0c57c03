//! What an update of a connector asks for beyond its predecessor: it gets nothing of it before somebody approves that.

use serde_json::{Value as Json, json};
use tidewaiter_tests::web::Web;
use tidewaiter_tests::{Place, lines, patched};

/// A connection with settings; all that any version of its connector asks for is granted.
fn connection(place: &Place, name: &str, settings: &str, web: &[&Web]) {
    let types = "[types.account]\nclass = \"account\"\n[secrets.root]\nfile = \"root\"\n";
    place
        .write(&format!("connections/{name}.toml"), &format!("connector = \"hostile\"\n[settings]\n{settings}{types}"));
    let http: Vec<String> = web.iter().map(|web| web.url("")).collect();
    place
        .write(&format!("grants/{name}.toml"), &format!("http = {http:?}\nread = [\"people\"]\nreveal = [\"root\"]\n"));
}

fn shown(place: &Place, name: &str) -> Json {
    place.run(&format!("connections show {name} --json")).json()
}

/// Kind, target and decision of all that is asked for.
fn decisions(shown: &Json) -> Vec<String> {
    let text = |one: &Json, name: &str| one[name].as_str().unwrap().to_owned();
    let line = |one: &Json| format!("{} {} {}", text(one, "kind"), text(one, "target"), text(one, "decision"));
    shown["capabilities"].as_array().unwrap().iter().map(line).collect()
}

fn said(place: &Place, name: &str) -> String {
    place.run(&format!("sync {name} account")).stderr
}

#[test]
fn an_update_gets_no_more_than_before_until_that_is_approved() {
    let (web, other) = (Web::new(), Web::new());
    let (first, second) = (web.url(""), other.url(""));
    let place = Place::empty();
    place.install("hostile");
    place.write("root", "r00t");
    let fetch = |ask: &str, more: &str| {
        let requests = [web.url("/"), other.url("/")];
        format!("do = \"fetch\"\nask = {ask:?}\nmore = {more:?}\nmore_folder = \"people\"\nrequests = {requests:?}\n")
    };
    connection(&place, "bad", &fetch(&first, &second), &[&web, &other]);
    connection(&place, "peek", "do = \"reveal\"\nreveal = \"root\"\nmore_secret = \"root\"\n", &[]);
    connection(&place, "odd", "do = \"reveal\"\nreveal = \"root\"\nmore = \"no host at all\"\n", &[]);
    place.write("tidewaiter.toml", "[socket]\nsecurity = [4242]\n");
    let server = place.serve();
    assert!(said(&place, "bad").contains("200 hello; refused ErrorCode::HttpRequestDenied"));
    assert_eq!(decisions(&shown(&place, "bad")), [format!("http {first} granted")]);
    assert_eq!(place.run("connections approve bad 00").code, 5, "there is nothing to approve");
    server.end();

    let update = patched(
        std::fs::read(place.path("connectors/hostile.wasm")).unwrap(),
        "describe:well-behaved",
        "describe:asks-more   ",
    );
    std::fs::write(place.path("connectors/hostile.wasm"), update).unwrap();
    let server = place.serve();
    server.wait_for("asks for more than was approved", 0);
    assert!(said(&place, "bad").contains("200 hello; refused ErrorCode::HttpRequestDenied"));
    assert_eq!(other.seen().len(), 0, "it is granted, and would have been asked");
    assert!(said(&place, "peek").contains("refused: not granted"));
    assert!(said(&place, "odd").contains("refused: not granted"), "what nobody approved keeps nothing from running");
    assert_eq!(shown(&place, "odd")["capabilities"][0]["by"], json!(["no host at all"]));
    let seen = shown(&place, "bad");
    // As it is asked for, with what that is now: nothing is hidden behind a setting that isn't there yet.
    let awaiting = ["http {settings.more}", "read {settings.more_folder}", "reveal {settings.more_secret}"];
    let awaiting = awaiting.map(|what| format!("{what} awaits-approval"));
    assert_eq!(decisions(&seen), [&[format!("http {first} granted")], &awaiting[..]].concat());
    assert_eq!(seen["capabilities"][1]["by"], json!([second]));
    assert!(seen["capabilities"][3]["by"][0].as_str().unwrap().contains("\"more_secret\", which is not set"));
    let log = seen["runs"][0]["spent"]["log"].to_string();
    assert!(log.contains("egress.awaits_approval"), "the run's log says why: {log}");
    let id = seen["awaits-approval"].as_str().unwrap().to_owned();
    let check = place.run("check");
    assert!(check.code == 4 && check.stdout.contains("nobody has approved"), "it asks the server: {check:?}");
    let text = place.run("connections show bad").stdout;
    assert!(text.contains(&format!("tidewaiter connections approve bad {id}\n")), "{text}");
    let refused = place.run(&format!("connections approve bad {id}"));
    assert!(refused.code == 5 && refused.stderr.contains("socket.security"), "{refused:?}");
    server.end();

    let check = place.run("check");
    assert!(check.code == 4 && check.stdout.contains("nobody has approved"), "or the db: {check:?}");
    place.write("tidewaiter.toml", "");
    let server = place.serve();
    let refused = place.run("connections approve bad 00112233445566778899aabbccddeeff");
    assert!(refused.code == 5 && refused.stderr.contains(&format!("now is {id}")), "{refused:?}");
    assert_eq!(place.run(&format!("connections approve other {id}")).code, 3);
    let approved = place.run(&format!("connections approve bad {id}"));
    assert!(approved.code == 0 && !approved.stdout.contains("approv"), "{approved:?}");
    assert!(said(&place, "bad").contains("200 hello; 200 hello"), "from the next run on");
    assert!(said(&place, "peek").contains("refused: not granted"), "another connection is another matter");
    let odd = shown(&place, "odd")["awaits-approval"].as_str().unwrap().to_owned();
    let refused = place.run(&format!("connections approve odd {odd}"));
    assert!(refused.code == 1 && refused.stderr.contains("the capability http asks for"), "{refused:?}");
    assert!(said(&place, "odd").contains("refused: not granted"), "and so it stays");
    let peek = shown(&place, "peek")["awaits-approval"].as_str().unwrap().to_owned();
    assert_eq!(place.run(&format!("connections approve peek {peek}")).code, 0);
    assert!(said(&place, "peek").contains("secret: r00t"));
    server.end();

    // Other settings ask for nothing new, and it stays approved.
    connection(&place, "bad", &fetch(&second, &first), &[&web, &other]);
    let server = place.serve();
    assert!(said(&place, "bad").contains("200 hello; 200 hello"));
    assert_eq!(shown(&place, "bad")["awaits-approval"], Json::Null);
    let refused = place.run(&format!("connections approve bad {id}"));
    assert!(refused.code == 5 && refused.stderr.contains("nothing awaits approval"), "{refused:?}");
    server.end();

    let audit = lines(&std::fs::read_to_string(place.path("data/audit.ndjson")).unwrap());
    let acts = |event: &str| -> Vec<&Json> {
        let of = audit.iter().filter(|line| line["event"] == event && line["act"] == "connections approve");
        of.map(|line| &line["on"]).collect()
    };
    assert_eq!(acts("not-allowed"), [&json!("bad"), &json!("bad")]);
    let asked = "http {settings.more}, read {settings.more_folder}, reveal {settings.more_secret}";
    let acts = acts("act");
    assert_eq!(acts, ["bad", "peek"].map(|name| json!(format!("{name}: {asked}"))).iter().collect::<Vec<_>>());
    assert_eq!(place.run("db check --deep").code, 0);
}
