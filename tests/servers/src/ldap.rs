//! OpenLDAP's clients, which work with any directory.

use std::path::{Path, PathBuf};

use crate::{fed, root_of, unprivileged};

/// The clients, and who asks which server of this machine by them.
pub(crate) struct Clients<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) port: u16,
    pub(crate) name: &'a str,
    pub(crate) password: &'a str,
}

impl Clients<'_> {
    /// Whether the server answers.
    pub(crate) fn are_answered(&self) -> bool {
        self.try_run("ldapsearch", &["-b", "", "-s", "base"], "").is_ok()
    }

    /// Changes entries: LDIF, in which those without `changetype` are added.
    #[track_caller]
    pub(crate) fn change(&self, ldif: &str) {
        self.run("ldapmodify", &["-a"], ldif);
    }

    /// Entries as LDIF: of this filter, and with these attributes.
    #[track_caller]
    pub(crate) fn search(&self, base: &str, filter: &str, attributes: &[&str]) -> String {
        self.run("ldapsearch", &[&["-LLL", "-o", "ldif-wrap=no", "-b", base, filter], attributes].concat(), "")
    }

    #[track_caller]
    fn run(&self, program: &str, arguments: &[&str], input: &str) -> String {
        self.try_run(program, arguments, input).unwrap_or_else(|problem| panic!("{program} {arguments:?}: {problem}"))
    }

    /// Runs one, and answers what it prints; or what it says when it fails.
    fn try_run(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
        let root: PathBuf =
            root_of("usr/bin/ldapmodify").expect("there is no ldapmodify: `cargo xtask setup` fetches it");
        let mut client = unprivileged(&root.join("usr/bin").join(program), self.folder);
        client.args(["-x", "-H", &format!("ldap://127.0.0.1:{}", self.port), "-D", self.name, "-w", self.password]);
        let output = fed(client.args(arguments), input);
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}
