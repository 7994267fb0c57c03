//! The connector `csv`: changes out of CSV files, by a column with the time of a row's last change.
//!
//! **What is exact, and why.** A row's position is (time, digest), where the digest covers all of its cells. Rows are delivered in
//! the order of their positions, so that nearly every row is followed by a resume point. The token has the latest time *and* says
//! which rows of that time were delivered (`token`). So a row that is written later with the same time is not lost, and
//! no row is repeated. Up to 4,000 rows of one time are named one by one. Beyond that they are summed up in 2,048 buckets; one
//! row that came or went in a bucket is told exactly, of a bucket with more differences every row is delivered again. That is
//! the only case in which something is repeated.
//!
//! **How a million rows fit.** A first pass (`scan`) keeps 32 bytes of each changed row, a second one (`deliver`) reads the changed
//! rows again, in blocks. Each must still have its digest: a file that is overwritten in between is an error, not a mixture.
//!
//! | module | owns |
//! |---|---|
//! | `settings`, `cells`, `time` | what the operator says, and what the text of a cell means |
//! | `rows`, `files` | bytes to rows; the open files, at rest, and their headers |
//! | `progress`, `token` | what was delivered, and the bytes that say so |
//! | `scan`, `deliver` | the two passes |
//! | `read` | all rows as they are now, without times or for a reconciliation |

mod cells;
mod deliver;
mod files;
mod progress;
mod read;
mod rows;
mod scan;
mod settings;
mod time;
mod token;

use tidewaiter_connector::{
    AttributeFlags, Capability, Changes, Connector, Error, Filter, Info, ObjectClass, Objects, Operation, SyncOptions,
    SyncToken, warn,
};

use files::CsvFile;
use progress::{Entry, Progress};
use settings::Config;
pub use settings::Settings;
use token::Token;

/// So many rows of each file are read by `check`.
const CHECKED_ROWS: usize = 1000;

/// The connector.
#[derive(Debug)]
pub struct Csv(Config);

tidewaiter_connector::export!(Csv);

impl Connector for Csv {
    type Settings = Settings;

    fn describe() -> Info {
        Info::new("csv", env!("CARGO_PKG_VERSION"))
            .summary("CSV files, by a column that has the time of each row's last change, or by comparison.")
            .operations([Operation::LiveSync, Operation::Search, Operation::Check])
            .settings_schema(include_str!("../settings.schema.json"))
            .token_format(token::FORMAT)
            .needs(Capability::Read("{settings.folder}".into()), "Reads the CSV files in this folder.")
    }

    fn new(settings: Settings) -> Result<Self, Error> {
        Ok(Self(settings.check()?))
    }

    fn object_classes(&self) -> Result<Vec<ObjectClass>, Error> {
        Ok(vec![self.class_of(&files::open(&self.0, None)?)])
    }

    fn check(&self) -> Result<(), Error> {
        let files = files::open(&self.0, None)?;
        let class = self.class_of(&files);
        let settings = &self.0.settings;
        for column in settings.types.keys().chain(settings.lists.keys()) {
            let is_there = class.attributes.iter().any(|attribute| attribute.name.eq_ignore_ascii_case(column));
            if !is_there && !files.is_empty() {
                let message = format!("settings `types` and `lists`: no file has an attribute {column:?}");
                return Err(Error::configuration(message));
            }
        }
        files.iter().try_for_each(|file| scan::check(file, &self.0, CHECKED_ROWS))
    }

    fn latest_sync_token(&self, class: &str) -> Result<Option<SyncToken>, Error> {
        self.has_times(class)?;
        let files = files::open(&self.0, None)?;
        let mut latest: Vec<Entry> = Vec::new();
        scan::scan(&files, &self.0, i64::MIN, |entry| {
            let newest = latest.first().map_or(i64::MIN, |newest| newest.at);
            if entry.at > newest {
                latest.clear();
            }
            if entry.at >= newest {
                latest.push(entry);
            }
        })?;
        progress::order(&mut latest);
        let mut progress = Progress::default();
        latest.iter().for_each(|entry| progress.advance(entry));
        let token = (!latest.is_empty()).then(|| progress.token(true)).flatten();
        Ok(token.as_ref().map(Into::into))
    }

    fn sync(
        &self,
        class: &str,
        token: Option<SyncToken>,
        options: &SyncOptions,
        changes: &mut Changes,
    ) -> Result<Option<SyncToken>, Error> {
        self.has_times(class)?;
        let token = token.as_ref().map(Token::try_from).transpose()?;
        let since = token.as_ref().map_or(i64::MIN, |token| token.at);
        let files = files::open(&self.0, Some(options))?;
        let mut entries = Vec::new();
        let newest = scan::scan(&files, &self.0, since, |entry| entries.push(entry))?;
        if newest.is_some_and(|newest| newest < since) {
            warn!("every row is older than what was delivered already: was an older file put back?");
        }
        progress::order(&mut entries);
        let progress = Progress::resume(token, &mut entries);
        let token = deliver::deliver(&files, &entries, progress, &self.0, changes)?;
        Ok(token.as_ref().map(Into::into))
    }

    /// All of them are one page: a page that began where another one ended would miss rows of a file that was replaced in between.
    fn search(
        &self,
        class: &str,
        filter: Filter,
        _page: Option<Vec<u8>>,
        options: &SyncOptions,
        objects: &mut Objects,
    ) -> Result<Option<Vec<u8>>, Error> {
        self.is_ours(class)?;
        match filter {
            Filter::All => read::read(&files::open(&self.0, Some(options))?, &self.0, objects).map(|()| None),
            Filter::ByUid(_) => Err(Error::unsupported("one row can't be read without reading all")),
        }
    }
}

impl Csv {
    fn has_times(&self, class: &str) -> Result<(), Error> {
        self.is_ours(class)?;
        let none = "without the setting `updated_at` changes are found by comparison, and there is no sync token";
        self.0.settings.updated_at.as_ref().map(drop).ok_or_else(|| Error::unsupported(none))
    }

    fn is_ours(&self, class: &str) -> Result<(), Error> {
        let ours = &self.0.settings.class;
        if class == ours {
            return Ok(());
        }
        Err(Error::unknown_object_class(format!("no object class {class:?}; the rows are of class {ours:?}")))
    }

    /// The attributes of all files together.
    fn class_of(&self, files: &[CsvFile]) -> ObjectClass {
        let settings = &self.0.settings;
        let mut class = ObjectClass::new(&settings.class).reports_deletes(settings.deleted_at.is_some());
        if settings.updated_at.is_none() {
            class = class.by_comparison();
        }
        for file in files {
            for (name, column) in file.columns.names.iter().zip(&file.columns.attributes) {
                let Some(column) = column else { continue };
                if class.attributes.iter().any(|attribute| attribute.name.eq_ignore_ascii_case(name)) {
                    continue;
                }
                let flags = match column.separator {
                    Some(_) => AttributeFlags::MULTI_VALUED,
                    None => AttributeFlags::empty(),
                };
                class = class.with_flags(name, column.cell_type.value_type(), flags);
            }
        }
        class
    }
}
