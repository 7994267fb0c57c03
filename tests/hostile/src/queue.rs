//! A well-behaved source of the kind that forgets what was acknowledged: a queue at `settings.queue`. `GET` answers the numbers of messages
//! that it has, with commas; `POST ?upto=N` makes it forget those up to N. The token is the number of the last message that was
//! handed over: what comes again up to it is skipped.

use super::*;

pub(super) fn sync(token: Option<SyncToken>) -> Result<Option<SyncToken>, ConnectorError> {
    let mut done = match token {
        Some(SyncToken::Integer(done)) => done,
        _ => 0,
    };
    let url = setting("queue").as_str().unwrap_or_default().to_owned();
    loop {
        // What is up to the token is durable, whatever became of the run before.
        acknowledge(&url, done)?;
        let answer = http::fetch(&url.as_str().into()).map_err(error)?;
        let numbers = answer.strip_prefix("200 ").ok_or_else(|| error(answer.clone()))?;
        let numbers = numbers.split(',').filter_map(|number| number.parse::<i64>().ok());
        let new: Vec<i64> = numbers.filter(|number| *number > done).collect();
        let Some(last) = new.last().copied() else { return Ok(Some(SyncToken::Integer(done))) };
        for number in &new {
            match emit(&[delta(&number.to_string())], Some(&SyncToken::Integer(*number))) {
                Ok(Flow::Proceed) => {}
                Ok(Flow::Stop) => return Ok(None),
                Err(rejection) => return Err(error(rejection.message)),
            }
        }
        flush().map_err(|rejection| error(rejection.message))?;
        done = last;
    }
}

fn acknowledge(url: &str, upto: i64) -> Result<(), ConnectorError> {
    let request = serde_json::json!({ "method": "POST", "url": format!("{url}?upto={upto}") });
    let answer = http::fetch(&request).map_err(error)?;
    if answer.starts_with("200") { Ok(()) } else { Err(error(answer)) }
}
