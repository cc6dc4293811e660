//! Decoders of this crate, laid bare for the fuzz targets. Not part of the API.

pub use crate::keeper::wire::bare as keeper;
