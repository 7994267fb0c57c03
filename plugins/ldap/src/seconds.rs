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

/// A stretch of time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Window {
    pub(crate) first: String,
    pub(crate) last: String,
    pub(crate) count: usize,
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

    /// Stretches of whole seconds, in their order, with about so many entries or less each; one with more is as short as it can be.
    pub(crate) fn windows(self, size: usize) -> Vec<Window> {
        let is_coarse = self.digits < SECOND;
        let mut windows: Vec<Window> = Vec::new();
        for (start, count) in self.counts {
            match windows.last_mut() {
                Some(window) if window.count + count <= size => {
                    window.last = end_of(&start);
                    window.count += count;
                }
                _ => windows.push(Window { first: start_of(&start), last: end_of(&start), count, is_coarse }),
            }
        }
        windows
    }
}

fn start_of(time: &str) -> String {
    format!("{time:0<SECOND$}")
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

/// Whether it is the digits of a second.
pub(crate) fn is_second(text: &str) -> bool {
    text.len() == SECOND && text.bytes().all(|byte| byte.is_ascii_digit())
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

    fn window(first: &str, last: &str, count: usize, is_coarse: bool) -> Window {
        Window { first: first.to_owned(), last: last.to_owned(), count, is_coarse }
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
        let windows = seconds(&counted, 100).windows(4);
        assert_eq!(
            windows,
            [
                window("20260301080001", "20260301080002", 4, false),
                window("20260301080003", "20260301080003", 4, false),
                window("20260301080059", "20260301080059", 9, false),
                window("20260301090000", "20260301090000", 1, false),
            ]
        );
        assert_eq!(seconds(&[], 100).windows(4), []);
    }

    #[test]
    fn too_many_seconds_are_taken_together_without_a_gap() {
        let counted = [("20260301080003", 1), ("20260301080159", 1), ("20260301090000", 2)];
        assert_eq!(
            seconds(&counted, 2).windows(1),
            [window("20260301080000", "20260301085960", 2, true), window("20260301090000", "20260301095960", 2, true),]
        );
        assert_eq!(seconds(&counted, 1).windows(9), [window("20260301000000", "20260301235960", 4, true)]);
    }

    #[test]
    fn only_whole_seconds_are_times() {
        assert_eq!(second("20260301080003Z").unwrap(), "20260301080003");
        assert_eq!(second("20260301080003.0Z").unwrap(), "20260301080003");
        for time in ["20260301080003.5Z", "20260301080003", "202603010800Z", "20260301080003+0100", ""] {
            assert!(second(time).is_err(), "{time}");
        }
    }
}
