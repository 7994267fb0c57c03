//! What the strategies have in hand during one call: a connection, the server behind it, and the attributes of the class.

use tidewaiter_connector::Error;

use crate::client::Client;
use crate::selection::Selection;
use crate::server::Server;
use crate::settings::{Class, Settings};

/// A class on a server.
pub(crate) struct Source<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) client: Client,
    pub(crate) server: Server,
    pub(crate) selection: Selection<'a>,
}

impl<'a> Source<'a> {
    pub(crate) fn open(
        settings: &'a Settings,
        class: (&'a str, &'a Class),
        wanted: Option<&[String]>,
    ) -> Result<Self, Error> {
        let mut client = Client::open(settings)?;
        let server = Server::of(&mut client)?;
        let selection = Selection::of(&mut client, &server, class, wanted)?;
        Ok(Self { settings, client, server, selection })
    }

    /// What tells the tree of the class apart from all others.
    pub(crate) fn tree(&mut self) -> Result<String, Error> {
        self.server.tree(&mut self.client, &self.selection.class.base)
    }
}
