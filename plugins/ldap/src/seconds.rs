//! The seconds in which entries were changed, counted, and cut into stretches that are read one after the other.

use std::collections::BTreeMap;

use tidewaiter_connector::Error;

/// So many are told apart; if there are more, those of a minute are taken together, then those of an hour, then those of a day.
const TOLD_APART_MAX: usize = 50_000;
/// The digits of a second.
const SECOND: usize = 14;

/// How many entries were changed in each second, or in each longer time.
#[derive(Debug)]
pub(crate) struct Seconds {
    /// The first digits of a time.
    counts: BTreeMap<String, usize>,
    digits: usize,
    told_apart_max: usize,
}

/// A stretch of time: what comes after one second, up to another one. Between two of them there is nothing that belongs to none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Window {
    /// None: from the beginning.
    pub(crate) after: Option<String>,
    pub(crate) last: String,
    pub(crate) count: usize,
    /// The only second in it that was counted, if there is one.
    pub(crate) only: Option<String>,
    /// Its seconds were not told apart.
    pub(crate) is_coarse: bool,
}

impl Default for Seconds {
    fn default() -> Self {
        Self { counts: BTreeMap::new(), digits: SECOND, told_apart_max: TOLD_APART_MAX }
    }
}

impl Seconds {
    /// Counts an entry.
    pub(crate) fn count(&mut self, second: &str) {
        *self.counts.entry(second[..self.digits].to_owned()).or_default() += 1;
        // Two digits are a minute's seconds, an hour's minutes, a day's hours.
        while self.counts.len() > self.told_apart_max && self.digits > SECOND - 6 {
            self.digits -= 2;
            for (second, count) in std::mem::take(&mut self.counts) {
                *self.counts.entry(second[..self.digits].to_owned()).or_default() += count;
            }
        }
    }

    /// Stretches of whole seconds, in their order, from after one up to another one, with about so many counted entries or less each; one with
    /// more has only one counted second, or was not told apart. An entry that got its time after it was counted is in one of them, too.
    pub(crate) fn windows(self, size: usize, after: Option<&str>, last: &str) -> Vec<Window> {
        let is_coarse = self.digits < SECOND;
        let mut windows: Vec<Window> = Vec::new();
        for (start, count) in self.counts {
            match windows.last_mut() {
                Some(window) if window.count + count <= size => {
                    window.last = end_of(&start);
                    window.count += count;
                    window.only = None;
                }
                before => {
                    let after = before.map_or_else(|| after.map(str::to_owned), |window| Some(window.last.clone()));
                    let only = (!is_coarse).then(|| start.clone());
                    windows.push(Window { after, last: end_of(&start), count, only, is_coarse });
                }
            }
        }
        match windows.last_mut() {
            Some(window) => last.clone_into(&mut window.last),
            None => {
                let after = after.map(str::to_owned);
                windows.push(Window { after, last: last.to_owned(), count: 0, only: None, is_coarse: false });
            }
        }
        windows
    }
}

fn end_of(time: &str) -> String {
    let end = "00000000235960";
    format!("{time}{}", &end[time.len()..])
}

/// A time as the digits of its second. Directories write no other ones.
pub(crate) fn second(time: &str) -> Result<String, Error> {
    let digits = time.strip_suffix('Z').and_then(|digits| match digits.split_once('.') {
        None => Some(digits),
        Some((digits, fraction)) => fraction.bytes().all(|byte| byte == b'0').then_some(digits),
    });
    let whole = digits.filter(|digits| is_second(digits)).map(str::to_owned);
    whole.ok_or_else(|| Error::unsupported(format!("{time:?} is no whole second: changes can't be found by time here")))
}

/// Whether it is the digits of a second that there is, or could be.
pub(crate) fn is_second(text: &str) -> bool {
    if text.len() != SECOND || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let within = |at: usize, range: std::ops::RangeInclusive<u8>| {
        text[at..at + 2].parse().is_ok_and(|number: u8| range.contains(&number))
    };
    within(4, 1..=12) && within(6, 1..=31) && within(8, 0..=23) && within(10, 0..=59) && within(12, 0..=60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(counted: &[(&str, usize)], told_apart_max: usize) -> Seconds {
        let mut seconds = Seconds { told_apart_max, ..Seconds::default() };
        for (second, count) in counted {
            (0..*count).for_each(|_| seconds.count(second));
        }
        seconds
    }

    fn window(after: Option<&str>, last: &str, count: usize, only: Option<&str>, is_coarse: bool) -> Window {
        Window {
            after: after.map(str::to_owned),
            last: last.to_owned(),
            count,
            only: only.map(str::to_owned),
            is_coarse,
        }
    }

    #[test]
    fn windows_hold_whole_seconds_and_no_more_than_fits() {
        let counted = [
            ("20260301080003", 4),
            ("20260301080001", 2),
            ("20260301080002", 2),
            ("20260301080059", 9),
            ("20260301090000", 1),
        ];
        let [first, second, third, last] = ["20260301080002", "20260301080003", "20260301080059", "20260301090000"];
        assert_eq!(
            seconds(&counted, 100).windows(4, Some("20260301075959"), last),
            [
                window(Some("20260301075959"), first, 4, None, false),
                window(Some(first), second, 4, Some(second), false),
                window(Some(second), third, 9, Some(third), false),
                window(Some(third), last, 1, Some(last), false),
            ]
        );
        assert_eq!(seconds(&[], 100).windows(4, None, last), [window(None, last, 0, None, false)]);
    }

    #[test]
    fn too_many_seconds_are_taken_together_without_a_gap() {
        let counted = [("20260301080003", 1), ("20260301080159", 1), ("20260301090000", 2)];
        assert_eq!(
            seconds(&counted, 2).windows(1, None, "20260301090000"),
            [
                window(None, "20260301085960", 2, None, true),
                window(Some("20260301085960"), "20260301090000", 2, None, true),
            ]
        );
        let day = window(None, "20260301090000", 4, None, true);
        assert_eq!(seconds(&counted, 1).windows(9, None, "20260301090000"), [day]);
    }

    #[test]
    fn only_whole_seconds_are_times() {
        assert_eq!(second("20260301080003Z").unwrap(), "20260301080003");
        assert_eq!(second("20260301080003.0Z").unwrap(), "20260301080003");
        for time in [
            "20261301080003Z",
            "20260301240003Z",
            "20260301080003.5Z",
            "20260301080003",
            "202603010800Z",
            "20260301080003+0100",
            "",
        ] {
            assert!(second(time).is_err(), "{time}");
        }
    }
}
