//! A source of which tests write every word: what happened is in the file `changes` of the folder, a line each, and what there is in
//! `objects`. A line is `UID,MAIL` or `UID,MAIL,UID-BEFORE`; the mail `nan` is a number that is none, `huge` more than an object may have,
//! `big` most of that, `salary` an attribute that is declared if the setting of that name says so, `gone` the end of the object. The token
//! is the number of lines that were told; with the setting `at-once` nothing is covered before the end.

use super::*;

/// Deltas in a batch.
const BATCH: usize = 2;

fn lines(name: &str) -> Vec<String> {
    let folder = setting("folder");
    let text = std::fs::read_to_string(format!("{}/{name}", folder.as_str().unwrap_or_default()));
    text.unwrap_or_default().lines().map(str::to_owned).collect()
}

fn told_of(line: &str) -> (ConnectorObject, Option<String>) {
    let mut words = line.split(',');
    let (uid, mail) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut object = object(uid, vec![Value::Text(mail.to_owned())]);
    match mail {
        "nan" => {
            (object.attributes[0].name, object.attributes[0].values) = ("number".into(), vec![Value::Real(f64::NAN)])
        }
        "salary" => object.attributes[0].name = "salary".into(),
        "big" => object.attributes[0].values = vec![Value::Text("x".repeat(900_000))],
        "huge" => object.attributes[0].values = vec![Value::Text("x".repeat(2_000_000))],
        _ => {}
    }
    (object, words.next().map(str::to_owned))
}

fn change(line: &str) -> SyncDelta {
    let (object, previous_uid) = told_of(line);
    let change = match line.ends_with(",gone") {
        true => Change::Delete(Deleted { uid: object.uid, name: None, last_known: None }),
        false => Change::CreateOrUpdate(Updated { object, previous_uid }),
    };
    SyncDelta { object_class: "account".into(), change, source_time: None }
}

pub(super) fn sync(token: Option<SyncToken>) -> Result<Option<SyncToken>, ConnectorError> {
    let mut done = match token {
        Some(SyncToken::Integer(done)) => usize::try_from(done).unwrap_or(0),
        _ => 0,
    };
    let lines = lines("changes");
    while done < lines.len() {
        let end = (done + BATCH).min(lines.len());
        let deltas: Vec<_> = lines[done..end].iter().map(|line| change(line)).collect();
        done = end;
        let covered = (setting("at-once") != true).then_some(SyncToken::Integer(done as i64));
        told(emit(&deltas, covered.as_ref()))?;
    }
    Ok(Some(SyncToken::Integer(done as i64)))
}

pub(super) fn search(wanted: Option<&str>) -> Result<(), ConnectorError> {
    let objects: Vec<_> = lines("objects").iter().map(|line| told_of(line).0).collect();
    let objects: Vec<_> = objects.into_iter().filter(|one| wanted.is_none_or(|uid| uid == one.uid)).collect();
    told(search_results::emit(&objects))
}
