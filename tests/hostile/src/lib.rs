//! A guest that misbehaves on purpose.
