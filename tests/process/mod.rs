//! The process: configuration, control socket, limits, policies, TLS, start and stop.

mod control;
mod doctor;
mod lifecycle;
mod limits;
mod policies;
mod tls;
