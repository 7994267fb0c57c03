//! A well-behaved source whose revisions differ by the word in their bytes: the file `count` in `settings.folder` says how many changes it
//! had. Each change is told with the word of the revision that told it; what else that does is said by the word, too.

use super::*;

pub(super) fn sync(token: Option<SyncToken>) -> Result<Option<SyncToken>, ConnectorError> {
    let done = match token {
        Some(SyncToken::Integer(done)) => done,
        _ => 0,
    };
    let file = format!("{}/count", setting("folder").as_str().unwrap_or_default());
    let count = std::fs::read_to_string(&file).map_err(|problem| error(format!("{file}: {problem}")))?;
    let count: i64 = count.trim().parse().map_err(|_| error(format!("{file}: {count:?}")))?;
    if how() == "forgets" {
        return Err(ConnectorError { kind: ErrorKind::InvalidSyncToken, ..error("it knows no such token".into()) });
    }
    for number in done + 1..=count {
        // It has handed over whatever came before.
        assert!(how() != "traps-late" || number < count, "at the last one");
        assert!(how() != "traps-third" || number != 3, "at the third one");
        let delta = of(object(&number.to_string(), vec![Value::Text(how().into())]));
        match emit(&[delta], Some(&SyncToken::Integer(number))) {
            Ok(Flow::Proceed) => {}
            Ok(Flow::Stop) => return Ok(None),
            Err(rejection) => return Err(error(rejection.message)),
        }
    }
    assert!(how() != "traps", "whatever came");
    Ok(Some(SyncToken::Integer(done.max(count))))
}
