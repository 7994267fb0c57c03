//! Handing objects over in `search`. Owns the batches.

use crate::{Error, Object, SyncOptions, host};

/// As in live sync, batches of this many keep the memory small and cost nothing.
const AIM_COUNT: u32 = 256;

/// Where `search` hands objects over, in any order.
#[derive(Debug)]
pub struct Objects {
    count_max: usize,
    bytes_max: u64,
    batch: Vec<Object>,
    bytes: u64,
    stopped: bool,
}

impl Objects {
    pub(crate) fn new(options: &SyncOptions) -> Self {
        Self {
            count_max: options.batch_count_max.clamp(1, AIM_COUNT) as usize,
            bytes_max: options.batch_bytes_max,
            batch: Vec::new(),
            bytes: 0,
            stopped: false,
        }
    }

    /// Hands one object over.
    pub fn push(&mut self, object: Object) -> Result<(), Error> {
        let size = object.size();
        if self.batch.len() >= self.count_max || self.bytes + size > self.bytes_max {
            self.hand_over()?;
        }
        self.bytes += size;
        self.batch.push(object);
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), Error> {
        if self.stopped {
            return Err(Error::stop());
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        let flow = host::emit_objects(&self.batch);
        self.batch.clear();
        self.bytes = 0;
        match flow? {
            host::Flow::Proceed => Ok(()),
            host::Flow::Stop => {
                self.stopped = true;
                Err(Error::stop())
            }
        }
    }

    pub(crate) fn end(mut self, outcome: Result<Option<Vec<u8>>, Error>) -> Result<Option<Vec<u8>>, Error> {
        match outcome.and_then(|page| self.hand_over().map(|()| page)) {
            Err(error) if error.is_stop() => Ok(None),
            outcome => outcome,
        }
    }
}
