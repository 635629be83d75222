//! Administration: the requests of an administrator, the control socket that takes them from the command line, and its
//! client.

mod client;
mod control_socket;
mod protocol;
mod requests;
mod top;

pub use self::{
    client::{AdminClient, ControlError, Snapshot},
    control_socket::{ControlSocket, Examine},
    protocol::{AdminRequest, ConfigFields, Finding, config_fields},
};
