//! Decoders of this crate, laid bare for the fuzz targets. Not part of the API.

pub use crate::device::log::read as record;
pub use crate::socket::events::bare as events;
pub use crate::socket::proxy::status as proxy_status;
